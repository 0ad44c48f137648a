"""
How fast training is fed, and what memory that takes.

    python tests/benchmarks/data.py --utterances 600 --rounds 5

Writes a corpus of real speech as a folder of FLAC files and as Parquet shards, and reads all of it as training does
(in random order, windows of 64,600 samples in batches of 12, no augmentation) in 0, 1 and 2 workers; and with a
plain loop: soundfile reads file after file, each is repeated to the window's length. Prints utterances/s and their
ratio to the plain loop, as the median of rounds that take turns. Then the peak memory of a fresh process that draws
1,000 utterances from corpora of 1,000 and of 100,000.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch

from nes2net_hf.corpora.shards.write import shard_corpus
from nes2net_hf.trainer.batches import BatchStream
from nes2net_hf.trainer.data import WindowDataset
from nes2net_hf.trainer.opening import open_split
from nes2net_hf.trainer.recipe import DataRecipe

FIXTURES = Path(__file__).parents[1] / "fixtures" / "audio"
BATCH, WINDOW = 12, 64_600


def main() -> None:
    arguments = _arguments()
    if arguments.probe:
        _probe(Path(arguments.probe))
        return
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        _throughput(Path(scratch), arguments)
    for rows in (1_000, 100_000):
        with tempfile.TemporaryDirectory() as scratch:
            _memory(Path(scratch), rows)


def _throughput(scratch: Path, arguments: argparse.Namespace) -> None:
    files = _write_speech(scratch / "flac", arguments.utterances)
    manifest = _write_manifest(scratch, files)
    shard_corpus("own-data", scratch / "shards", root=str(manifest))
    runs = {("soundfile loop", None): lambda: _plain(files)}
    for form, root in (("FLAC folder", manifest), ("Parquet shards", scratch / "shards")):
        for workers in (0, 1, 2):
            stream = _stream(root, workers)
            runs[form, workers] = lambda stream=stream: sum(len(batch["labels"]) for batch in stream)
    seen = {name: run() for name, run in runs.items()}  # the first time reads from the disk, and starts workers
    times: dict[tuple[str, int | None], list[float]] = {name: [] for name in runs}
    for turn in range(arguments.rounds):
        for name in sorted(runs, key=str, reverse=turn % 2 == 1):
            start = time.perf_counter()
            runs[name]()
            times[name].append(time.perf_counter() - start)
    seconds = sum(soundfile.info(path).duration for path in files)
    print(f"{len(files)} utterances, {seconds / len(files):.1f} s on average, {os.cpu_count()} cores")
    plain = seen["soundfile loop", None] / statistics.median(times["soundfile loop", None])
    for (form, workers), taken in times.items():
        rate = seen[form, workers] / statistics.median(taken)
        where = "" if workers is None else f", {workers} workers"
        print(f"{form + where:<26} {rate:7.0f} utterances/s, {rate / plain:.2f} of the plain loop")


def _plain(files: list[Path]) -> int:
    for start in range(0, len(files), BATCH):
        waves = [soundfile.read(path, dtype="float32")[0] for path in files[start : start + BATCH]]
        torch.from_numpy(np.stack([np.resize(wave[:WINDOW], WINDOW) for wave in waves]))
    return len(files)


def _stream(root: Path, workers: int) -> BatchStream:
    recipe = DataRecipe(root=str(root), window_length=WINDOW)
    rows = open_split(recipe, "train", BATCH)
    dataset = WindowDataset(rows, recipe)
    return BatchStream(dataset, rows.group_sizes, BATCH, dataset.collate, workers=workers)


def _memory(scratch: Path, rows: int) -> None:
    """Tenths of a second of sound under as many names; what is measured is what rows cost, not audio."""
    (scratch / "flac").mkdir()
    soundfile.write(scratch / "one.flac", soundfile.read(next(FIXTURES.glob("*.flac")))[0][8000:9600], 16_000)
    files = [scratch / "flac" / f"{number}.flac" for number in range(rows)]
    for path in files:
        path.symlink_to(scratch / "one.flac")
    manifest = _write_manifest(scratch, files)
    # As many rows in a shard as 500 MB of four-second utterances.
    shard_corpus("own-data", scratch / "shards", root=str(manifest), shard_bytes=5_000 * files[0].stat().st_size)
    for form, root in (("FLAC folder", manifest), ("Parquet shards", scratch / "shards")):
        done = subprocess.run(
            [sys.executable, __file__, "--probe", str(root)], capture_output=True, text=True, check=True
        )
        print(f"{form}, {rows:,} rows: peak {done.stdout.strip()} MiB")


def _probe(root: Path) -> None:
    drawn = 0
    for batch in _stream(root, 0):
        drawn += len(batch["labels"])
        if drawn >= 980:
            break
    # Linux's own count: what getrusage tells begins with the peak of the process that started this one.
    [peak] = [
        line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")
    ]
    print(int(peak) // 1024)


def _write_speech(folder: Path, count: int) -> list[Path]:
    """Utterances of two to six seconds, cut from the suite's recordings laid end to end."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    speech = np.concatenate([soundfile.read(path, dtype="float32")[0] for path in sorted(FIXTURES.glob("*.flac"))])
    files = []
    for number in range(count):
        length = int(rng.uniform(2, 6) * 16_000)
        start = int(rng.integers(len(speech) - length))
        files.append(folder / f"{number:05}.flac")
        soundfile.write(files[-1], speech[start : start + length], 16_000)
    return files


def _write_manifest(folder: Path, files: list[Path]) -> Path:
    lines = [f"flac/{path.name},{('bonafide', 'spoof')[number % 2]}" for number, path in enumerate(files)]
    (folder / "data.csv").write_text("path,label\n" + "\n".join(lines) + "\n")
    return folder / "data.csv"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--probe", metavar="ROOT", help="draw from one corpus and print the peak memory")
    return parser.parse_args()


if __name__ == "__main__":
    main()
