"""Batches: each utterance once, the same order for any number of processes and workers, resumable at any batch."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("datasets")

from torch.utils.data import Dataset, default_collate

from nes2net_hf.corpora.shards.write import shard_corpus
from nes2net_hf.trainer.batches import BatchStream, Broken, BrokenDataError, in_order
from nes2net_hf.trainer.data import WindowDataset
from nes2net_hf.trainer.opening import open_split
from nes2net_hf.trainer.order import epoch_order, lane_count
from nes2net_hf.trainer.recipe import DataRecipe
from tests.helpers import FIXTURES

GROUPS = {"folder": np.ones(203, int), "shards": np.array([32, 32, 32, 5, 32, 32, 32, 6])}


class Rows(Dataset):
    """Items that contain their epoch and row. Rows in `broken` cannot be read."""

    def __init__(self, broken: tuple[int, ...] = ()) -> None:
        self.broken = broken

    def __getitem__(self, key: tuple[int, int]) -> Any:
        epoch, row = key
        return Broken(f"{row}.flac is empty.") if row in self.broken else {"row": row, "epoch": epoch}


def make(groups: np.ndarray, batch_size: int = 12, broken: tuple[int, ...] = (), **options: Any) -> BatchStream:
    return BatchStream(Rows(broken), groups, batch_size, default_collate, **{"seed": 7, **options})


def rows_of(stream: Iterator[dict[str, Any]] | BatchStream) -> list[list[int]]:
    return [batch["row"].tolist() for batch in stream]


@pytest.mark.parametrize("form", GROUPS)
def test_three_processes_of_two_workers_see_each_utterance_once(form: str) -> None:
    alone = make(GROUPS[form], keep_last=True)
    streams = [make(GROUPS[form], process=p, processes=3, workers=2, keep_last=True) for p in range(3)]
    for epoch in range(2):
        shares = [rows_of(stream) for stream in streams]
        assert [len(share) for share in shares] == [len(stream) for stream in streams] == [17] * 3
        assert sorted(row for share in shares for batch in share for row in batch) == list(range(203))
        # Together, they are the batches of one process.
        together = [sorted(chain(*parts)) for parts in zip(*shares, strict=True)]
        assert together == [sorted(batch) for batch in rows_of(alone)], epoch


def test_epochs_differ_and_a_ragged_batch_is_dropped_or_kept() -> None:
    dropped, kept = make(GROUPS["folder"]), make(GROUPS["folder"], keep_last=True)
    first, second = rows_of(dropped), rows_of(dropped)
    assert first != second and [len(batch) for batch in first] == [12] * 16
    assert rows_of(kept)[:16] == first and dropped.epoch == 2
    assert rows_of(make(GROUPS["folder"], seed=8)) != first
    few = make(np.ones(13, int), processes=3, keep_last=True)  # three processes cannot share one utterance
    assert len(few) == 1


@pytest.mark.parametrize("form", GROUPS)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_state_goes_on_with_the_exact_next_batch(form: str, workers: int) -> None:
    whole = make(GROUPS[form])
    expected = rows_of(whole) + rows_of(whole)
    stream = make(GROUPS[form], workers=workers)
    batches = iter(stream)
    seen = [next(batches)["row"].tolist() for _ in range(5)]
    state = json.loads(json.dumps(stream.state_dict()))
    taken_up = make(GROUPS[form], workers=workers)
    taken_up.load_state_dict(state)
    rest = rows_of(taken_up)
    assert len(rest) == 11 and seen + rest + rows_of(taken_up) == expected


def test_shards_are_mixed_though_few_groups_are_in_memory() -> None:
    groups = np.full(400, 32)
    order = epoch_order(groups, batch_size=12, seed=0, epoch=0)
    assert np.array_equal(np.sort(order), np.arange(groups.sum()))
    batches = order[: groups.sum() // 12 * 12].reshape(-1, 12) // 32
    assert np.mean([len(set(batch)) for batch in batches]) > 11.5  # a batch mixes distant utterances
    # A reader that caches recent groups reads each group hardly more than once.
    held: dict[int, None] = {}
    reads = 0
    for group in order // 32:
        reads += group not in held
        held.pop(group, None)
        held[group] = None
        if len(held) > lane_count(12) + 2:
            held.pop(next(iter(held)))
    assert reads < 1.1 * len(groups)


def test_batches_of_like_length_are_all_utterances_in_random_order() -> None:
    lengths = np.random.default_rng(1).integers(1_000, 100_000, 1_003)
    plain, alike = (make(np.ones(1_003, int), keep_last=True, lengths=value) for value in (None, lengths))
    spread = []
    for stream in (plain, alike):
        batches = rows_of(stream)
        assert sorted(chain(*batches)) == list(range(1_003)) and len(batches[-1]) == 7
        spread.append(np.mean([np.ptp(lengths[batch]) for batch in batches[:-1]]))
        means = [lengths[batch].mean() for batch in batches[:50]]
        assert abs(np.corrcoef(means, range(50))[0, 1]) < 0.5  # short batches do not come first
    assert spread[1] < 0.05 * spread[0]
    assert rows_of(alike) != batches


def test_broken_utterances_are_named_counted_and_skipped_up_to_a_limit(caplog: pytest.LogCaptureFixture) -> None:
    stream = make(GROUPS["folder"], broken=(3, 77), max_broken=2, keep_last=True)
    assert sorted(chain(*rows_of(stream))) == [row for row in range(203) if row not in (3, 77)]
    assert {"3.flac is empty.", "77.flac is empty."} == set(stream.state_dict()["broken"])
    assert "skipped: 77.flac is empty." in caplog.text
    rows_of(stream)  # the same two are not counted again
    with pytest.raises(BrokenDataError, match=r"3 utterances could not be read, more than data.max_broken=2: .*flac"):
        rows_of(make(GROUPS["folder"], broken=(3, 77, 100), max_broken=2, keep_last=True))
    with pytest.raises(BrokenDataError, match="including a whole batch"):
        rows_of(make(np.ones(4, int), batch_size=2, broken=(0, 1, 2, 3), max_broken=9))
    with pytest.raises(BrokenDataError, match=r"^5.flac is empty\.$"):
        list(in_order(Rows(broken=(5,)), [[0, 1], [5, 2]], default_collate))
    batches = [[3, 1], [2], [0, 4]]
    assert rows_of(in_order(Rows(), batches, default_collate, workers=2)) == batches


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real speech in a folder per class, with one truncated file."""
    root = tmp_path_factory.mktemp("own")
    for number, voice in enumerate(sorted((FIXTURES / "audio").glob("*.flac"))):
        (root / ("real", "fake")[number % 2]).mkdir(exist_ok=True)
        shutil.copy(voice, root / ("real", "fake")[number % 2] / f"{number:02}.flac")
    broken = root / "real" / "00.flac"
    broken.write_bytes(broken.read_bytes()[:5000])
    return root


def windows(root: Path, **options: Any) -> BatchStream:
    recipe = DataRecipe(root=str(root), window_length=16_000, augmentation=[{"name": "rawboost", "number": 5}])
    rows = open_split(recipe, "train", batch_size=4)
    dataset = WindowDataset(rows, recipe, seed=3)
    return BatchStream(dataset, rows.group_sizes, 4, dataset.collate, **{"seed": 3, "max_broken": 1, **options})


def test_shards_give_the_same_windows_as_the_folder_and_name_what_is_broken(folder: Path, tmp_path: Path) -> None:
    shard_corpus("own-data", tmp_path / "shards", root=str(folder), shard_bytes=500_000)
    recipe = DataRecipe(root=str(folder), window_length=16_000)
    rows = [WindowDataset(open_split(DataRecipe(root=str(root), window_length=16_000), "train"), recipe, "train", 3)
            for root in (folder, tmp_path / "shards")]  # fmt: skip
    for index in range(len(rows[0])):
        first, second = (dataset[0, index] for dataset in rows)
        if isinstance(first, Broken):
            assert "00.flac is truncated or damaged" in first
            assert "utterance real/00 is truncated or damaged" in second
        else:
            assert np.array_equal(first[0], second[0]) and first[1] == second[1]
    stream = windows(tmp_path / "shards")
    assert sum(len(batch["labels"]) for batch in stream) >= len(rows[0]) - 4 and len(stream.broken) == 1


@pytest.mark.slow
def test_a_kill_in_the_middle_of_an_epoch_loses_and_repeats_nothing(folder: Path, tmp_path: Path) -> None:
    code = (
        "import json, os, signal, sys; from pathlib import Path; from tests.trainer.test_batches import windows\n"
        "stream, out = windows(Path(sys.argv[1]), workers=2), Path(sys.argv[2])\n"
        "for number, batch in enumerate(stream):\n"
        "    (out / f'{number}.bytes').write_bytes(batch['input_values'].numpy().tobytes())\n"
        "    (out / 'state.json').write_text(json.dumps(stream.state_dict()))\n"
        "    if number == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    command = [sys.executable, "-c", code, str(folder), str(tmp_path)]
    killed = subprocess.run(command, check=False, cwd=Path(__file__).parents[2])
    assert killed.returncode == -signal.SIGKILL
    seen = [(tmp_path / f"{number}.bytes").read_bytes() for number in range(3)]
    again = windows(folder)
    again.load_state_dict(json.loads((tmp_path / "state.json").read_text()))
    rest = [batch["input_values"].numpy().tobytes() for batch in again]
    assert seen + rest == [batch["input_values"].numpy().tobytes() for batch in windows(folder)]
