"""
How long `nes2net detect --demo` takes with each backend, from its start to its end. Judging the two recordings takes a
small part of it.

    python tests/benchmarks/start.py [--rounds 7]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from nes2net_hf.pretrained.export import export
from nes2net_hf.pretrained.places import DEMO_MODEL


def seconds(*options: str) -> float:
    command = [sys.executable, "-m", "nes2net_cli", "detect", "--demo", *options]
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "graph"
        export(DEMO_MODEL, graph)
        ways = {"torch": (), "onnx": ("--backend", "onnx", "--model", str(graph))}
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, options in ways.items():
                times[name].append(seconds(*options))
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    for name, median in medians.items():
        print(f"{name:6} {median:.2f} s, {medians['torch'] / median:.1f} times as fast")


if __name__ == "__main__":
    main()
