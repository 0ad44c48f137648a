"""
One process on all cores, one on a single core, or a process for each core: which judges the most audio a second?

    python tests/benchmarks/threads.py [--model FOLDER] [--dtype float32] [--rounds 2] [--windows 16]

Without --model, it builds a random XLS-R 300M. Each process loads the model, waits for the others, and judges its
share of the windows; loading does not count. The ways alternate. Memory is the sum of the processes' peaks (Linux).
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

WINDOW = 64_600


def judge(model: str, dtype: str, windows: int, threads: int, start: Any, answer: Any) -> None:
    import torch

    from nes2net_hf.audio import read_audio
    from nes2net_hf.detection import Detector
    from nes2net_hf.samples import BONAFIDE, SPOOF

    torch.set_num_threads(threads)
    detector = Detector(model, dtype=dtype)
    speech = np.resize(np.concatenate([read_audio(path) for path in (BONAFIDE, SPOOF)]), windows * WINDOW)
    list(detector.stream([(speech[:WINDOW], 16_000)]))
    start.wait()
    began = time.perf_counter()
    list(detector.stream([(speech, 16_000)]))
    taken = time.perf_counter() - began
    status = Path("/proc/self/status").read_text()
    answer.put((taken, int(status.split("VmHWM:")[1].split()[0]) / 1024))


def run(processes: int, threads: int, options: argparse.Namespace, model: str) -> tuple[float, float]:
    """Seconds of audio a second, and MiB."""
    context = multiprocessing.get_context("spawn")
    start, answer = context.Barrier(processes), context.Queue()
    share = options.windows // processes
    workers = [
        context.Process(target=judge, args=(model, options.dtype, share, threads, start, answer))
        for _ in range(processes)
    ]
    for worker in workers:
        worker.start()
    taken, memory = zip(*(answer.get() for _ in workers))
    for worker in workers:
        worker.join()
    return options.windows * WINDOW / 16_000 / max(taken), sum(memory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--windows", type=int, default=16)
    options = parser.parse_args()
    from precision import build

    from nes2net_hf.machine import cores

    ways = {(1, cores()): [], (1, 1): [], (cores(), 1): []}  # type: dict[tuple[int, int], list[tuple[float, float]]]
    with tempfile.TemporaryDirectory() as folder:
        model = str(options.model or build(Path(folder), wavlm=False))
        for _ in range(options.rounds):
            for (processes, threads), found in ways.items():
                found.append(run(processes, threads, options, model))
    print(f"{'processes':>9} {'threads each':>12} {'audio s/s':>10} {'MiB':>6}")
    for (processes, threads), found in ways.items():
        speed, memory = (statistics.median(values) for values in zip(*found))
        print(f"{processes:>9} {threads:>12} {speed:>10.2f} {memory:>6.0f}")


if __name__ == "__main__":
    main()
