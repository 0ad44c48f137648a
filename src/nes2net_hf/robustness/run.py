"""
Measures a model's equal error rate on a corpus, clean and under each of the `conditions`. Needs the extra `train`.

    run = RobustnessRun("nes2net-mine", Path("robustness"), corpus="in-the-wild", root="/data/in-the-wild")
    rows = [run.measure(condition) for condition in run.conditions]

Each utterance is scored once, in float32, as in `training/score.py` and in benchmarks. The feature extractor decides
how much is heard: the first 4.04 s, or all. (`nes2net detect` also judges the rest of longer ones.) A model of frames
scores an utterance by its lowest frame. Higher = bona fide.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch

from ..audio import AudioError, holds_sound
from ..corpora.labels import LABEL_NAMES
from ..corpora.loading import open_rows
from ..corpora.utterances import read_utterance
from ..errors import RobustnessError
from ..files import begin, explained
from ..metrics import Interval, bootstrap_eer
from ..pretrained.fingerprint import fingerprint
from ..pretrained.load import choose_device, load_model
from ..scores import judges_frames, of_file
from ..version import __version__
from .conditions import SEED, Condition, make_conditions, number_of

BATCH, RESAMPLES, CONFIDENCE = 8, 1000, 0.95


@dataclass(frozen=True)
class Measured:
    """One row of the table: the result of one condition."""

    group: str
    name: str
    bonafide: int
    """Number of bona fide scores."""
    spoof: int
    """Number of spoof scores."""
    eer: Interval | None
    """Fractions; None if a class has no score."""
    left_out: dict[str, str]
    """Utterance → why the condition left nothing to judge."""
    seconds: float
    """Mean time to read, change and score one utterance."""


class RobustnessRun:
    """
    Measures a model on a corpus, one condition at a time, and keeps the results in a folder.

    Scores are saved in `OUT/scores` after each batch: a killed run continues and does not score them again. The sounds
    for the conditions are in `OUT/sounds`.

    Args:
        model: folder, Hub id or official checkpoint.
        out: the folder; created if it does not exist.
        corpus, root, split, where: see `load_corpus`.
        limit: maximum number of utterances, balanced over classes and, in each class, over speakers.

    Attributes:
        conditions: all conditions, the clean one first.
        trials: the utterances.
        network, extractor, device: the model, and where it runs.
        unreadable: utterance → why it cannot be read, as found so far. Every run tries these again.

    Raises:
        ModelError: the model cannot be loaded.
        CorpusError: the corpus cannot be opened.
        RobustnessError: the corpus lacks a class, or PyAV lacks a codec.
        OutputError, DiskError: the folder cannot be written, or holds scores of other work.
    """

    def __init__(
        self,
        model: str,
        out: Path,
        *,
        corpus: str,
        root: str,
        split: str | None = None,
        where: Mapping[str, Sequence[str]] | None = None,
        limit: int | None = None,
    ) -> None:
        self.out, self.device = out, choose_device()
        self.network, self.extractor = load_model(model, None, self.device, "float32")
        config: Any = self.network.config
        self._judges_frames = judges_frames(config)
        by_length = self.extractor.length_policy == "whole"
        batch_size = 1 if self._judges_frames else BATCH  # no padding, whose frames would be judged, too
        self.trials = Trials(corpus, root, split, where, limit, by_length, batch_size)
        self.what: dict[str, Any] = {
            "model": model,
            "weights": fingerprint(self.network, self.extractor),
            "corpus": corpus,
            "root": root,
            "split": split,
            "where": dict(where or {}),
            "limit": limit,
            "utterances": self.trials.fingerprint,
            "seed": SEED,
            "nes2net_hf": __version__,
        }
        begin(out / "what.json", self.what)
        self.conditions = self._make_conditions()
        self.unreadable: dict[str, str] = {}

    def _make_conditions(self) -> tuple[Condition, ...]:
        try:
            return make_conditions(self.out / "sounds")
        except ValueError as error:
            raise RobustnessError(
                f"{error} The PyAV wheel on PyPI has it: pip install --force-reinstall av."
            ) from None

    def measure(self, condition: Condition, progress: Callable[[int], None] | None = None) -> Measured:
        """
        Scores the utterances that have no score under this condition yet, and computes the equal error rate.

        Args:
            progress: called after each batch with its number of utterances.

        Raises:
            RobustnessError: a score of the model is not finite.
            CorpusError: a shard cannot be read.
        """
        kept = _Kept(self.out / "scores", condition)
        for batch in self.trials.batches:
            todo = [row for row in batch if self.trials.utterances[row] not in kept]
            if todo:
                started = monotonic()
                scores, left_out = self._judge(condition, todo)
                kept.add(scores, left_out, monotonic() - started)
            if progress is not None:
                progress(len(batch))
        return self._summarise(condition, kept)

    def scores(self, condition: Condition) -> dict[str, float]:
        """Returns the scores so far under a condition, by utterance."""
        return dict(_Kept(self.out / "scores", condition).scores)

    def _judge(self, condition: Condition, rows: Sequence[int]) -> tuple[dict[str, float], dict[str, str]]:
        """Returns scores by utterance, and why other utterances have none under this condition."""
        waveforms: dict[str, np.ndarray] = {}
        left_out: dict[str, str] = {}
        for row in rows:
            utterance = self.trials.utterances[row]
            try:
                waveform = read_utterance(self.trials.rows[row])
            except AudioError as error:
                self.unreadable[utterance] = str(error)
                continue
            try:
                waveforms[utterance] = self._check(condition(waveform, utterance))
            except AudioError as error:
                left_out[utterance] = str(error).replace("<bytes>", "the output of the codec", 1)
        if not waveforms:
            return {}, left_out
        rate = self.extractor.sampling_rate
        inputs = self.extractor(
            list(waveforms.values()), sampling_rate=rate, return_tensors="pt", return_attention_mask=True
        ).to(self.device)
        with torch.inference_mode():
            judged = self.network.score(self.network(**inputs).logits)
        scores = [of_file(one, self._judges_frames) for one in judged.reshape(len(waveforms), -1).tolist()]
        for utterance, score in zip(waveforms, scores):
            if not math.isfinite(score):
                raise RobustnessError(
                    f"model {self.what['model']} gives {utterance} a score that is not a finite number under "
                    f"{condition.group}, {condition.name}: check its weights."
                )
        return dict(zip(waveforms, scores)), left_out

    def _check(self, waveform: np.ndarray) -> np.ndarray:
        """Checks the output of a condition as strictly as reading checks a recording."""
        if waveform.size < self.extractor.min_samples:
            raise AudioError(f"too short: {waveform.size} of {self.extractor.min_samples} samples are left.")
        if not holds_sound(waveform):
            raise AudioError("silent: nothing rises above -60 dBFS.")
        return waveform

    def _summarise(self, condition: Condition, kept: _Kept) -> Measured:
        trials = self.trials
        rows = [row for batch in trials.batches for row in batch if trials.utterances[row] in kept.scores]
        classes = [[row for row in sorted(rows) if trials.labels[row] == label] for label in range(len(LABEL_NAMES))]
        spoof, bonafide = ([kept.scores[trials.utterances[row]] for row in rows] for rows in classes)
        eer = None
        if bonafide and spoof:
            speakers: Any = [None, None]
            if trials.speakers is not None:
                speakers = [[trials.speakers[row] for row in rows] for rows in classes]
            eer = bootstrap_eer(
                bonafide,
                spoof,
                bonafide_speakers=speakers[1],
                spoof_speakers=speakers[0],
                resamples=RESAMPLES,
                confidence=CONFIDENCE,
                seed=SEED,
            )
        count = max(len(kept.scores) + len(kept.left_out), 1)
        return Measured(
            condition.group, condition.name, len(bonafide), len(spoof), eer, kept.left_out, kept.seconds / count
        )


class Trials:
    """
    The utterances of a corpus, or a selection of them that is the same in every run.

    Args:
        corpus, root, split, where, limit: see `RobustnessRun`.
        by_length: whether to batch utterances of similar length, so that there is little padding.
        batch_size: utterances per batch.

    Attributes:
        rows: the rows of the whole corpus, by number.
        utterances, labels, speakers: row number → id, class and speaker of the selected utterances; `speakers` is None
            if any is unknown.
        batches: row numbers as they are scored.
        fingerprint: fingerprint of the selection.
    """

    def __init__(
        self,
        corpus: str,
        root: str,
        split: str | None,
        where: Mapping[str, Any] | None,
        limit: int | None,
        by_length: bool,
        batch_size: int,
    ) -> None:
        place: dict[str, Any] = {"root": root, "where": where}
        names = open_rows(corpus, split, columns_read=("utterance_id", "speaker_id"), **place)
        self.rows = open_rows(corpus, split, columns_read=("utterance_id", "audio"), **place)
        everything = [names[row] for row in range(len(names))]  # names only, without audio
        chosen = range(len(everything)) if limit is None else choose(everything, names.labels, limit)
        self.utterances = {row: everything[row]["utterance_id"] for row in chosen}
        self.labels = {row: int(names.labels[row]) for row in chosen}
        speakers = {row: everything[row]["speaker_id"] for row in chosen}
        self.speakers = speakers if all(speakers.values()) else None
        for label, name in enumerate(LABEL_NAMES):
            if label not in self.labels.values():
                raise RobustnessError(
                    f"{root} has no {name} utterances of {corpus} to score, but an EER needs both classes."
                )
        sizes = self.rows.sizes() if by_length else None
        order = list(chosen) if sizes is None else sorted(chosen, key=lambda row: sizes[row])
        self.batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        text = json.dumps([[self.utterances[row], self.labels[row]] for row in chosen])
        self.fingerprint = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def __len__(self) -> int:
        return len(self.utterances)

    def count(self, label: str) -> int:
        """Returns the number of utterances of a class."""
        return sum(LABEL_NAMES[value] == label for value in self.labels.values())


def choose(rows: Sequence[Mapping[str, Any]], labels: np.ndarray, limit: int) -> list[int]:
    """
    Returns `limit` row numbers, in the corpus's order. Classes take turns, and so do speakers in each class. A hash of
    the names decides which utterances of a speaker are chosen.
    """

    def by_speaker(row: int) -> Any:
        return labels[row], rows[row]["speaker_id"]

    def by_class(row: int) -> Any:
        return labels[row]

    order = sorted(range(len(rows)), key=lambda row: number_of("choice", rows[row]["utterance_id"]))
    for group in (by_speaker, by_class):
        seen: Counter[Any] = Counter()
        turns = {}
        for row in order:
            turns[row] = seen[group(row)]
            seen[group(row)] += 1
        order.sort(key=turns.__getitem__)  # stable: keeps the order within a turn
    return sorted(order[:limit])


class _Kept:
    """
    The saved results of one condition, one line per batch. A line that a kill cut off is removed.

    Attributes:
        scores, left_out: by utterance.
        seconds: the time that they took.
    """

    def __init__(self, folder: Path, condition: Condition) -> None:
        letters = f"{condition.group} {condition.name}".lower()
        name = "-".join("".join(letter if letter.isalnum() or letter == "." else " " for letter in letters).split())
        self._path = folder / f"{name}.jsonl"
        self.scores: dict[str, float] = {}
        self.left_out: dict[str, str] = {}
        self.seconds = 0.0
        folder.mkdir(exist_ok=True)
        if not self._path.exists():
            return
        text = self._path.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        if whole != text:
            os.truncate(self._path, len(whole))
        for line in whole.splitlines():
            self._take(json.loads(line))

    def __contains__(self, utterance: str) -> bool:
        return utterance in self.scores or utterance in self.left_out

    def add(self, scores: dict[str, float], left_out: dict[str, str], seconds: float) -> None:
        """Adds a batch, in memory and on disk. If all of its utterances are unreadable, it adds nothing."""
        if scores or left_out:
            line = {"seconds": round(seconds, 4), "scores": scores, "left_out": left_out}
            with explained(self._path), open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            self._take(line)

    def _take(self, line: dict[str, Any]) -> None:
        self.scores |= line["scores"]
        self.left_out |= line["left_out"]
        self.seconds += line["seconds"]
