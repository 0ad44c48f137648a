"""`nes2net corpus check` and `nes2net corpus shard`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from .common import UsageError, as_utf8, counting, need_train, pairs, say


def run_corpus_check(
    name: str, root: Path, split: str | None, columns: list[str], labels: list[str], full: bool
) -> int:
    """Checks a corpus and says what was found; returns the exit code."""
    try:
        from ..corpora.checking import check_corpus, report_check
        from ..errors import CorpusError
    except ImportError as error:
        return need_train(error)
    as_utf8(sys.stdout)
    is_whole = True
    try:
        maps = pairs("--column", columns), pairs("--label", labels)
        with counting("files looked at") as count:
            for checked in check_corpus(name, root, split, full, count, *maps):
                is_whole &= checked.is_whole
                for line in report_check(name, checked):
                    print(line, flush=True)
        return 0 if is_whole else 1
    except (CorpusError, UsageError) as error:
        say(f"Error: {error}")
        return 2
    except KeyboardInterrupt:
        say("Interrupted.")
        return 130


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


def run_corpus_shard(options: ShardOptions) -> int:
    """Writes shards, and pushes them where asked; returns the exit code."""
    try:
        from ..corpora.sharding import push_shards, shard_corpus
        from ..errors import CorpusError
    except ImportError as error:
        return need_train(error)
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        columns, label_map = pairs("--column", options.columns), pairs("--label", options.labels)
        with counting("utterances in shards") as count:
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
            )
        print(f"{options.out}: {len(shards)} shards, {sum(shard.stat().st_size for shard in shards) / 1e9:.2f} GB")
        if options.push:
            print(f"pushed: {push_shards(options.out, options.push)}")
        return 0
    except UsageError as error:
        say(f"Error: {error}")
        return 2
    except CorpusError as error:
        say(f"Error: {error}")
        return 1
    except OSError as error:
        place = error.filename or options.out
        say(f"Error: {error.strerror or error} while writing {place}; finished shards are kept.")
        return 1
    except KeyboardInterrupt:
        say("Interrupted: finished shards are kept, and the same command makes the rest.")
        return 130
