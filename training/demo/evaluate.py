"""
Evaluate a model and the trivial baseline on the demonstration corpus's test partition, and write the model card.

    python training/demo/evaluate.py --corpus demo-corpus --model runs/demo/best

Whole utterances are judged, as in `nes2net detect`. Each attack is compared with the bona fide utterances of its codec
conditions. The script prints the table, and writes `evaluation.json` and the card `README.md` to the model's folder.
"""

import argparse
import json
import platform
import sys
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import transformers
import yaml
from corpus.baseline import baseline_scores
from corpus.manifest import Entry, read_manifest

from nes2net_hf import Detector, Nes2NetForAudioClassification
from nes2net_hf.cards import render
from nes2net_hf.metrics import Interval, bootstrap_eer
from nes2net_hf.pretrained.config_file import change_config


@dataclass
class Condition:
    """One row of the table: EERs of model and baseline on the same trials, as fractions with 95 % intervals."""

    name: str
    bonafide: int
    spoof: int
    model: Interval
    baseline: Interval


def read_partition(corpus: Path, partition: str) -> list[Entry]:
    """Returns the utterances of a partition in manifest order."""
    return [entry for entry in read_manifest(corpus / "manifest.csv") if entry.partition == partition]


def model_scores(model: Path, corpus: Path, utterances: list[Entry]) -> dict[str, float]:
    """Returns utterance id → score; higher means bona fide."""
    detector = Detector(str(model))
    scores = {}
    for utterance, result in zip(utterances, detector.stream([str(corpus / u.path) for u in utterances]), strict=True):
        if result.score is None:
            raise SystemExit(f"error: {result.error}")
        scores[utterance.utterance_id] = result.score
        if len(scores) % 200 == 0:
            print(f"{len(scores)} of {len(utterances)} judged", file=sys.stderr)
    return scores


def evaluate(name: str, spoofs: list[Entry], bonafide: list[Entry], systems: list[dict[str, float]]) -> Condition:
    """Evaluates both systems on these spoofs and the bona fide utterances of their codec conditions."""
    codecs = {utterance.codec for utterance in spoofs}
    bonafide = [utterance for utterance in bonafide if utterance.codec in codecs]
    intervals = [
        bootstrap_eer(
            [scores[u.utterance_id] for u in bonafide],
            [scores[u.utterance_id] for u in spoofs],
            bonafide_speakers=[u.speaker_id for u in bonafide],
            spoof_speakers=[u.speaker_id for u in spoofs],
        )
        for scores in systems
    ]
    return Condition(name, len(bonafide), len(spoofs), *intervals)


def conditions(corpus: Path, systems: list[dict[str, float]], test: list[Entry]) -> list[Condition]:
    """Returns rows for the seen attacks, pooled and single, then for the unseen ones. Train has the seen attacks."""
    seen = {utterance.attack for utterance in read_partition(corpus, "train") if utterance.attack}
    bonafide = [utterance for utterance in test if utterance.label == "bonafide"]
    attacks: dict[str, list[Entry]] = defaultdict(list)
    for utterance in test:
        if utterance.label == "spoof":
            attacks[utterance.attack].append(utterance)
    rows = []
    for kind, names in (("seen", sorted(set(attacks) & seen)), ("unseen", sorted(set(attacks) - seen))):
        pooled = [utterance for name in names for utterance in attacks[name]]
        rows.append(evaluate(f"all {kind} attacks", pooled, bonafide, systems))
        rows += [evaluate(f"{kind}: {name}", attacks[name], bonafide, systems) for name in names]
    return rows


def table(rows: list[Condition]) -> str:
    """Returns the rows as a Markdown table, with rates in per cent."""

    def percent(interval: Interval) -> str:
        return f"{100 * interval.estimate:.1f} ({100 * interval.low:.1f} to {100 * interval.high:.1f})"

    lines = [
        "| attack | bona fide | spoof | model EER % (95 % interval) | trivial baseline EER % (95 % interval) |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        cells = (row.name, row.bonafide, row.spoof, percent(row.model), percent(row.baseline))
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def write_card(folder: Path, rows: list[Condition], test: list[Entry]) -> None:
    """Fills the card's template with the results. An unknown placeholder is an error."""
    model = Nes2NetForAudioClassification.from_pretrained(folder)
    recipe = folder.parent / "recipe.yaml"
    curve = folder.parent / "metrics.jsonl"
    robust = folder / "robustness.json"  # written by `nes2net robustness`, with robustness.png
    history = [json.loads(line) for line in curve.read_text(encoding="utf-8").splitlines()]
    card = render(
        "demo.md",
        table=table(rows),
        parameters=f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}",
        threshold=f"{model.config.threshold:.3f}",
        speakers=len({u.speaker_id for u in test if u.label == "bonafide"}),
        unit=rows[0].model.unit,
        epochs=len(history),
        minutes=f"{sum(line['seconds'] for line in history) / 60:.0f}",
        averaged=[int(name.removeprefix("epoch-")) for name in getattr(model.config, "averaged_from", [])],
        best_epoch=min(history, key=lambda line: line["dev_eer"])["epoch"],
        best_dev_eer=f"{100 * min(line['dev_eer'] for line in history):.1f}",
        calibration=model.config.calibration["provenance"],
        robustness=json.loads(robust.read_text(encoding="utf-8")) if robust.is_file() else None,
        recipe=yaml.safe_dump(yaml.safe_load(recipe.read_text(encoding="utf-8")), sort_keys=False).strip(),
        environment=f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}",
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def mark(folder: Path) -> None:
    """Marks the model in its configuration as a demonstration that nobody should rely on."""
    change_config(folder, demonstration=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True, help="a calibrated model of a run")
    options = parser.parse_args()
    test = read_partition(options.corpus, "test")
    baseline = {row["utterance_id"]: row["score"] for row in baseline_scores(options.corpus)}
    rows = conditions(options.corpus, [model_scores(options.model, options.corpus, test), baseline], test)
    print(table(rows))
    figures = [asdict(row) | {key: getattr(row, key)._asdict() for key in ("model", "baseline")} for row in rows]
    (options.model / "evaluation.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    write_card(options.model, rows, test)
    mark(options.model)
    return 0


if __name__ == "__main__":
    sys.exit(main())
