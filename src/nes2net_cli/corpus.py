"""`nes2net corpus check` and `nes2net corpus shard`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from .console import as_utf8, counting, ending
from .options import Columns, Config, CorpusArgument, Labels, Root, Split, pairs


def check(
    name: CorpusArgument,
    root: Root,
    split: Split = None,
    columns: Columns = None,
    label_map: Labels = None,
    full: Annotated[
        bool, typer.Option("--full", help="Decode every file, instead of reading only its header.")
    ] = False,
    config: Config = None,
) -> int:
    """
    Check that a corpus is complete: report what is there, missing, unreadable or not as published.

    Exit codes:
      0    the corpus is complete
      1    something is missing, unreadable or not as published
      2    an option or the corpus is wrong
      130  interrupted
    """
    with ending(extra="train") as end:
        from datasets.utils.logging import disable_progress_bar

        from nes2net_hf.corpora.check import check_corpus, report_check, report_facts

        as_utf8(sys.stdout)
        disable_progress_bar()
        maps = pairs("--column", columns), pairs("--label", label_map)
        with counting("files checked") as count:
            for checked in check_corpus(name, root, split, full, count, *maps, config=config):
                end.code |= not checked.is_whole
                for line in report_check(name, checked):
                    print(line, flush=True)
        for line in report_facts(name):
            print(line)
    return end.code


def shard(
    name: CorpusArgument,
    root: Root,
    out: Annotated[Path, typer.Option(help="Folder for the shards; finished ones in it are kept.")],
    split: Split = None,
    columns: Columns = None,
    label_map: Labels = None,
    flac: Annotated[bool, typer.Option("--flac", help="Recode WAV and AIFF to FLAC, without loss.")] = False,
    allow_missing: Annotated[bool, typer.Option("--allow-missing", help="Skip utterances without audio.")] = False,
    shard_size: Annotated[int, typer.Option(min=1, help="Approximate size of a shard's audio, in megabytes.")] = 500,
    push: Annotated[
        str | None,
        typer.Option("--push", metavar="ORG/NAME", help="Upload to this dataset repository; a new one is private."),
    ] = None,
    form: Annotated[
        Literal["nes2net", "arena"],
        typer.Option("--form", help="Columns of nes2net_hf, or of the Speech Anti-Spoofing Arena."),
    ] = "nes2net",
    config: Config = None,
) -> int:
    """
    Write a corpus as Parquet shards, which stream from a disk, the Hub or S3.

    To continue after a stop, run the same command again.

    Exit codes:
      0    the shards were written
      1    the disk is full, or the Hub refused the upload
      2    an option, the corpus or the folder is wrong
      130  interrupted
    """
    with ending("Interrupted: finished shards are kept; run the same command to continue.", extra="train") as end:
        from datasets.utils.logging import disable_progress_bar

        from nes2net_hf.corpora.shards.write import check_shareable, push_shards, shard_corpus
        from nes2net_hf.files import claim
        from nes2net_hf.hub import prepare_push

        disable_progress_bar()
        maps = {"columns": pairs("--column", columns), "label_map": pairs("--label", label_map)}
        if push:
            check_shareable(name)
            prepare_push(push, "dataset")
        with claim(out, "workplace"), counting("utterances in shards") as count:
            shards = shard_corpus(
                name,
                out,
                root=root,
                split=split,
                flac=flac,
                shard_bytes=shard_size * 1_000_000,
                form=form,
                progress=count,
                allow_missing=allow_missing,
                config=config,
                **maps,
            )
        print(f"{out}: {len(shards)} shards, {sum(shard.stat().st_size for shard in shards) / 1e9:.2f} GB")
        if push:
            print(f"pushed: {push_shards(out, push)}")
    return end.code
