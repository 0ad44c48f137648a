"""`nes2net corpus check` and `nes2net corpus shard`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from ..errors import offering
from ..files import claim
from .common import as_utf8, counting, ending, pairs


@offering("split", "columns", "label_map", "config")
def run_corpus_check(
    name: str, root: str, split: str | None, columns: list[str], labels: list[str], full: bool, config: str | None
) -> int:
    """Checks a corpus and says what was found; returns the exit code."""
    as_utf8(sys.stdout)
    with ending(extra="train") as end:
        from datasets.utils.logging import disable_progress_bar

        from ..corpora.check import check_corpus, report_check

        disable_progress_bar()
        maps = pairs("--column", columns), pairs("--label", labels)
        with counting("files looked at") as count:
            for checked in check_corpus(name, root, split, full, count, *maps, config=config):
                end.code |= not checked.is_whole
                for line in report_check(name, checked):
                    print(line, flush=True)
    return end.code


@dataclass
class ShardOptions:
    """What `nes2net corpus shard` was asked for."""

    name: str
    root: str
    out: Path
    split: str | None
    columns: list[str]
    labels: list[str]
    flac: bool
    allow_missing: bool
    shard_size: int
    push: str | None
    form: str
    config: str | None


@offering("split", "columns", "label_map", "allow_missing", "config")
def run_corpus_shard(options: ShardOptions) -> int:
    """Writes shards, and pushes them where asked; returns the exit code."""
    with ending("Interrupted: finished shards are kept, and the same command makes the rest.", extra="train") as end:
        from datasets.utils.logging import disable_progress_bar

        from ..corpora.shards.write import push_shards, shard_corpus
        from ..hub import prepare_push

        disable_progress_bar()
        columns, label_map = pairs("--column", options.columns), pairs("--label", options.labels)
        if options.push:
            prepare_push(options.push, "dataset")
        with claim(options.out, "workplace"), counting("utterances in shards") as count:
            shards = shard_corpus(
                options.name,
                options.out,
                root=options.root,
                split=options.split,
                flac=options.flac,
                shard_bytes=options.shard_size * 1_000_000,
                form=options.form,
                progress=count,
                allow_missing=options.allow_missing,
                columns=columns,
                label_map=label_map,
                config=options.config,
            )
        print(f"{options.out}: {len(shards)} shards, {sum(shard.stat().st_size for shard in shards) / 1e9:.2f} GB")
        if options.push:
            print(f"pushed: {push_shards(options.out, options.push)}")
    return end.code
