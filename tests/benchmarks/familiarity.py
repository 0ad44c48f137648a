"""
How many recordings a calibrated model calls unlike its calibration data, and its errors on these and on the others.

    python tests/benchmarks/familiarity.py MODEL --root demo-corpus/manifest.csv --where partition=test

The recordings are judged as `nes2net detect` does, as they are and under every condition of `nes2net robustness`, and
then by language. An error is a label that is wrong. A demonstration model is judged as if it were any other model.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from nes2net_hf import Detector
from nes2net_hf.audio import SAMPLING_RATE
from nes2net_hf.corpora.loading import open_rows
from nes2net_hf.corpora.utterances import read_utterance
from nes2net_hf.detection import Result
from nes2net_hf.detection.deciding import UNLIKE
from nes2net_hf.robustness.conditions import make_conditions
from nes2net_hf.robustness.run import Trials


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of a model that nes2net calibrate has calibrated")
    parser.add_argument("--corpus", default="own-data")
    parser.add_argument("--root", required=True)
    parser.add_argument("--where", default="partition=test")
    parser.add_argument("--limit", type=int, default=240, help="recordings, balanced over classes and speakers")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    column, _, value = options.where.partition("=")
    where = {column: [value]}
    trials = Trials(options.corpus, options.root, None, where, options.limit, by_length=False, batch_size=16)
    columns = ("utterance_id", "language")
    names = open_rows(options.corpus, None, root=options.root, where=where, columns_read=columns)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "model")
        shutil.copytree(options.model, folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"demonstration": False}))
        detector = Detector(folder)
        rows = sorted(trials.utterances)
        print(f"{'':14} {'condition':12} {'flagged':>8} {'errors if flagged':>18} {'if not':>8} {'not judged':>11}")
        clean: list[Result] = []
        for condition in make_conditions(Path(scratch, "sounds")):
            results = list(detector.stream(_changed(trials, rows, condition)))
            clean = clean or results
            figures = _figures(results, [trials.labels[row] for row in rows])
            print(f"{condition.group:14} {condition.name:12} {figures}", flush=True)
        by_language: dict[str, list[int]] = defaultdict(list)
        for place, row in enumerate(rows):
            by_language[str(names[row]["language"])].append(place)
        for language, places in sorted(by_language.items()):
            found = [clean[place] for place in places]
            print(f"{'language':14} {language:12} {_figures(found, [trials.labels[rows[place]] for place in places])}")


def _changed(trials: Trials, rows: list[int], condition: Any) -> Iterator[dict[str, Any]]:
    for row in rows:
        waveform = condition(read_utterance(trials.rows[row]), trials.utterances[row])
        yield {"array": waveform, "sampling_rate": SAMPLING_RATE}


def _figures(results: list[Result], labels: list[int]) -> str:
    judged = [(one, label) for one, label in zip(results, labels, strict=True) if one.label is not None]
    flagged = [any(warning.startswith(UNLIKE) for warning in one.warnings) for one, _ in judged]
    wrong = [(one.label == "bonafide") != (label == 1) for one, label in judged]
    cells = [f"{sum(flagged) / max(1, len(judged)):8.1%}"]
    for inside, width in ((True, 18), (False, 8)):
        chosen = [error for error, flag in zip(wrong, flagged, strict=True) if flag is inside]
        cells.append(f"{sum(chosen) / len(chosen):{width}.1%}" if chosen else f"{'':{width}}")
    return " ".join([*cells, f"{len(results) - len(judged):11}"])


if __name__ == "__main__":
    main()
