"""
Measures whole-utterance scoring (`training/score.py --length whole`) in batches of similar length against batches of
one, on recordings of mixed lengths, in turns in one run, and the largest difference of a score:

    python tests/benchmarks/scoring.py --utterances 64 --rounds 3
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import torch

from nes2net_hf.evaluation.scoring import score_corpus
from nes2net_hf.pretrained.load import DEMO_MODEL
from nes2net_hf.samples import BONAFIDE, SPOOF


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(DEMO_MODEL))
    parser.add_argument("--utterances", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    draws = np.random.default_rng(0)
    speech = np.concatenate([soundfile.read(path, dtype="float32")[0] for path in (BONAFIDE, SPOOF)])
    with tempfile.TemporaryDirectory() as folder:
        lines = ["path,label"]
        for number in range(options.utterances):
            length = draws.uniform(1, 8)  # as in the corpora: most utterances last one to eight seconds
            cut = np.resize(np.roll(speech, -int(draws.integers(speech.size))), round(16_000 * length))
            soundfile.write(Path(folder, f"{number}.flac"), cut, 16_000)
            lines.append(f"{number}.flac,{('bonafide', 'spoof')[number % 2]}")
        Path(folder, "data.csv").write_text("\n".join(lines), encoding="utf-8")
        seconds: dict[int, list[float]] = {1: [], 16: []}
        scores: dict[int, list[float]] = {}
        for _ in range(options.rounds):
            for size in seconds:
                out = Path(folder, f"{size}.txt")
                out.unlink(missing_ok=True)
                scored = score_corpus(
                    options.model, out, corpus="own-data", root=f"{folder}/data.csv", batch_size=size, length="whole"
                )
                seconds[size].append(scored.seconds)
                scores[size] = [float(line.split()[-1]) for line in out.read_text(encoding="utf-8").splitlines()]
    ratio = statistics.median(one / many for one, many in zip(seconds[1], seconds[16]))
    moved = max(abs(one - many) for one, many in zip(scores[1], scores[16]))
    for size, times in seconds.items():
        print(f"batches of {size}: {statistics.median(times):.2f} s for {options.utterances} utterances")
    print(f"{ratio:.2f} times as fast in batches of 16; largest difference of a score {moved:.1e}")


if __name__ == "__main__":
    main()
