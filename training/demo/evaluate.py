"""
Evaluate a model and the trivial baseline on the demonstration corpus, and write the model card.

    python training/demo/evaluate.py --corpus demo-corpus --model runs/demo/best --previous OLD

Whole utterances are judged, as in `nes2net detect`: those of the test partition, the same through MP3 at 16 kbit/s and
11 kHz, and those of the partition extra. Each attack is compared with the bona fide utterances of its codec
conditions. The script prints the tables, and writes to the model's folder `evaluation.json`, the card `README.md`, and
the scores for `nes2net evaluate`, with those of the previous model if it is given: `scores/test.csv`,
`scores/test-previous.csv` and so on.
"""

import argparse
import json
import platform
import sys
from dataclasses import asdict
from pathlib import Path

import torch
import transformers
import yaml
from corpus.baseline import baseline_scores
from corpus.evaluation import Condition, conditions, model_scores, table, write_scores
from corpus.manifest import Entry, read_manifest

from nes2net_hf import Nes2NetForAudioClassification
from nes2net_hf.cards import render
from nes2net_hf.pretrained.config_file import change_config


def read_partition(corpus: Path, partition: str) -> list[Entry]:
    """Returns the utterances of a partition in manifest order."""
    return [entry for entry in read_manifest(corpus / "manifest.csv") if entry.partition == partition]


def write_card(folder: Path, rows: dict[str, list[Condition]], test: list[Entry], extra: list[Entry]) -> None:
    """Fills the card's template with the results. An unknown placeholder is an error."""
    model = Nes2NetForAudioClassification.from_pretrained(folder)
    recipe = folder.parent / "recipe.yaml"
    curve = folder.parent / "metrics.jsonl"
    robust = folder / "robustness.json"  # written by `nes2net robustness`, with robustness.png
    history = [json.loads(line) for line in curve.read_text(encoding="utf-8").splitlines()]
    card = render(
        "demo.md",
        tables={trials: table(found) for trials, found in rows.items()},
        previous=rows["test"][0].previous is not None,
        parameters=f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}",
        threshold=f"{model.config.threshold:.3f}",
        speakers=len({u.speaker_id for u in test if u.label == "bonafide"}),
        extra_speakers=len({u.speaker_id for u in extra if u.label == "bonafide"}),
        unit=rows["test"][0].model.unit,
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
    parser.add_argument("--previous", type=Path, help="an older model, for the same trials")
    options = parser.parse_args()
    seen = {utterance.attack for utterance in read_partition(options.corpus, "train") if utterance.attack}
    test, extra = (read_partition(options.corpus, partition) for partition in ("test", "extra"))
    baseline = baseline_scores(options.corpus, ("test", "extra"))
    rows = {}
    for trials, utterances, through_mp3 in (
        ("test", test, False),
        ("test through MP3", test, True),
        ("extra", extra, False),
    ):
        if not utterances:
            continue
        systems: list[dict[str, float] | None] = []
        for model, suffix in ((options.model, ""), (options.previous, "-previous")):
            scores = model_scores(model, options.corpus, utterances, through_mp3) if model else None
            systems.append(scores)
            if scores:
                write_scores(options.model / f"scores/{trials.replace(' ', '-').lower()}{suffix}.csv", scores)
        systems.append(None if through_mp3 else baseline)
        rows[trials] = conditions(trials, seen, utterances, systems)
        print(f"{trials}\n\n{table(rows[trials])}\n", flush=True)
    figures = [
        asdict(row)
        | {key: getattr(row, key) and getattr(row, key)._asdict() for key in ("model", "previous", "baseline")}
        for found in rows.values()
        for row in found
    ]
    (options.model / "evaluation.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    write_card(options.model, rows, test, extra)
    mark(options.model)
    return 0


if __name__ == "__main__":
    sys.exit(main())
