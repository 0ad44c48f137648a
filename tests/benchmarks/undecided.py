"""
Is the accepted share of errors kept? For `nes2net calibrate --undecided`.

    python tests/benchmarks/undecided.py DEV.parquet --root demo-corpus/manifest.csv --where partition=dev \
        --other TEST.csv --other-where partition=test

DEV holds the scores that a model was calibrated with. They are split into halves again and again, at random, and by
speaker: one half sets the limits, and the other is judged. The bound must hold on average for the random splits. Then
all of DEV sets the limits for OTHER, whose speakers and attacks are others: no bound holds there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nes2net_hf.calibration import fit_calibration
from nes2net_hf.evaluation.figures import Trials, match
from nes2net_hf.evaluation.keys import keys_of_corpus
from nes2net_hf.evaluation.score_files import read_scores
from nes2net_hf.reference import Population


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scores", type=Path)
    parser.add_argument("--corpus", default="own-data")
    parser.add_argument("--root", required=True)
    parser.add_argument("--where", default="partition=dev")
    parser.add_argument("--other", type=Path)
    parser.add_argument("--other-where", default="partition=test")
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--splits", type=int, default=1_000)
    options = parser.parse_args()

    def read(path: Path, where: str) -> Trials:
        column, _, value = where.partition("=")
        return match(read_scores(path), keys_of_corpus(options.corpus, root=options.root, where={column: [value]}))

    trials = read(options.scores, options.where)
    real, rng = trials.keys.labels == 1, np.random.default_rng(0)
    print(f"{'':32} {'bona fide as spoof':>18} {'spoof as bona fide':>18} {'undecided':>9} {'wrong if decided':>16}")
    speakers = trials.keys.columns["speaker_id"]
    names = np.unique(speakers.astype(str))
    for what in ("recordings", "speakers"):
        found = []
        while len(found) < options.splits:
            if what == "recordings":
                first = rng.permutation(len(real)) < len(real) // 2
            else:
                first = np.isin(speakers.astype(str), rng.permutation(names)[: len(names) // 2])
            if min(mask.sum() for mask in (first & real, first & ~real, ~first & real, ~first & ~real)) >= 20:
                found.append(_rates(trials.scores, real, first, ~first, options.share))
        print(_row(f"halves of {what}, {options.splits} times", np.mean(found, axis=0)))
    if options.other is not None:
        other = read(options.other, options.other_where)
        scores = np.concatenate([trials.scores, other.scores])
        both = np.concatenate([real, other.keys.labels == 1])
        known = np.arange(len(both)) < len(real)
        print(_row(f"all, for {options.other_where}", _rates(scores, both, known, ~known, options.share)))
        attacks = other.keys.columns["attack"].astype(str)
        for attack in sorted({one for one, label in zip(attacks, other.keys.labels, strict=True) if label == 0}):
            judged = ~known & (both | (np.concatenate([np.full(len(real), ""), attacks]) == attack))
            print(_row(f"  {attack}", _rates(scores, both, known, judged, options.share)))


def _rates(
    scores: NDArray[np.float64],
    real: NDArray[np.bool_],
    seen: NDArray[np.bool_],
    judged: NDArray[np.bool_],
    share: float,
) -> list[float]:
    threshold = fit_calibration(scores[seen & real], scores[seen & ~real]).score(0.0)
    low, high = Population.of_scores("", scores[seen & real], scores[seen & ~real]).band(share, threshold)
    below, above = scores[judged] < low, scores[judged] > high
    kind = real[judged]
    wrong, decided = (below & kind) | (above & ~kind), below | above
    return [below[kind].mean(), above[~kind].mean(), 1 - decided.mean(), wrong.sum() / max(1, decided.sum())]


def _row(name: str, rates: NDArray[np.float64] | list[float]) -> str:
    return f"{name:32} {rates[0]:18.1%} {rates[1]:18.1%} {rates[2]:9.1%} {rates[3]:16.1%}"


if __name__ == "__main__":
    main()
