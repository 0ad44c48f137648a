"""The demonstration corpus's trials: scores of a model, and EERs for each attack, with intervals by speaker."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nes2net_hf import Detector
from nes2net_hf.metrics import Interval, bootstrap_eer

from .audio import SAMPLE_RATE, mp3_round_trip, read
from .manifest import Entry
from .partitions import attack_groups


@dataclass
class Condition:
    """
    One row of a table: EERs on the same trials, as fractions with 95 % intervals.

    `trials` is `test`, `test through MP3` or `extra`. `previous` and `baseline` are None if they were not measured.
    """

    trials: str
    name: str
    bonafide: int
    spoof: int
    model: Interval
    previous: Interval | None
    baseline: Interval | None


def model_scores(model: Path, corpus: Path, utterances: list[Entry], through_mp3: bool = False) -> dict[str, float]:
    """Returns utterance id → score; higher means bona fide."""

    def sources() -> Iterator[Any]:
        for utterance in utterances:
            path = corpus / utterance.path
            yield (mp3_round_trip(read(path)), SAMPLE_RATE) if through_mp3 else str(path)

    scores = {}
    for utterance, result in zip(utterances, Detector(str(model)).stream(sources()), strict=True):
        if result.score is None:
            raise SystemExit(f"error: {utterance.path}: {result.error}")
        scores[utterance.utterance_id] = result.score
        if len(scores) % 500 == 0:
            print(f"{len(scores)} of {len(utterances)} judged", file=sys.stderr)
    return scores


def write_scores(path: Path, scores: dict[str, float]) -> None:
    """Writes a score file that `nes2net evaluate` reads."""
    path.parent.mkdir(exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("utterance_id", "score"), *scores.items()])


def evaluate(
    trials: str, name: str, spoofs: list[Entry], bonafide: list[Entry], systems: list[dict[str, float] | None]
) -> Condition:
    """Evaluates the systems on these spoofs and the bona fide utterances of their codec conditions."""
    codecs = {utterance.codec for utterance in spoofs}
    bonafide = [utterance for utterance in bonafide if utterance.codec in codecs]
    intervals = [
        bootstrap_eer(
            [scores[u.utterance_id] for u in bonafide],
            [scores[u.utterance_id] for u in spoofs],
            bonafide_speakers=[u.speaker_id for u in bonafide],
            spoof_speakers=[u.speaker_id for u in spoofs],
        )
        if scores is not None
        else None
        for scores in systems
    ]
    return Condition(trials, name, len(bonafide), len(spoofs), *intervals)


def conditions(
    trials: str, seen: set[str], utterances: list[Entry], systems: list[dict[str, float] | None]
) -> list[Condition]:
    """Returns a row for each of `attack_groups`."""
    bonafide = [utterance for utterance in utterances if utterance.label == "bonafide"]
    spoofs = [utterance for utterance in utterances if utterance.label == "spoof"]
    return [
        evaluate(trials, name, [spoof for spoof in spoofs if spoof.attack in attacks], bonafide, systems)
        for name, attacks in attack_groups({spoof.attack for spoof in spoofs}, seen).items()
    ]


def table(rows: list[Condition]) -> str:
    """Returns the rows as a Markdown table, with rates in per cent. Columns that no row has are left out."""

    def percent(interval: Interval | None) -> str:
        if interval is None:
            return "not measured"
        return f"{100 * interval.estimate:.1f} ({100 * interval.low:.1f} to {100 * interval.high:.1f})"

    titles = {"model": "model", "previous": "model of 0.1.0", "baseline": "trivial baseline"}
    systems = {key: title for key, title in titles.items() if any(getattr(row, key) for row in rows)}
    lines = [
        "| attack | bona fide | spoof | " + " | ".join(systems.values()) + " |",
        "|---|---:|---:|" + "---:|" * len(systems),
    ]
    for row in rows:
        cells = (row.name, row.bonafide, row.spoof, *(percent(getattr(row, key)) for key in systems))
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)
