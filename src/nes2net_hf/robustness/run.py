"""
A model's equal error rate on a corpus as it is, and under the conditions of `degradations`. Needs the extra `train`.

    run = RobustnessRun("nes2net-mine", Path("robustness"), corpus="in-the-wild", root="/data/in-the-wild")
    rows = [run.measure(condition) for condition in run.conditions]

An utterance is scored once, as `training/score.py` scores it and as benchmarks do: the model's feature extractor says
how much of it is heard (the first 4.04 s, or all), in float32. `nes2net detect` judges the rest of longer ones, too. A
model of frames scores an utterance by its lowest one. Score: higher = bona fide.
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
    """One row of the table: what came of one condition."""

    group: str
    name: str
    bonafide: int
    """Scores that the rate is over."""
    spoof: int
    eer: Interval | None
    """Fractions; None where a class has no score."""
    left_out: dict[str, str]
    """Utterance → why the condition left nothing to judge of it."""
    seconds: float
    """Of reading, changing and scoring one utterance, on average."""


class RobustnessRun:
    """
    A model, a corpus and a folder, ready to be measured condition by condition.

    Scores are kept in `OUT/scores` as they come: a run that was killed continues, and what is finished is not scored
    again. The sounds that conditions draw from lie in `OUT/sounds`.

    Args:
        model: Hub id or folder.
        out: the folder; made where it is not there.
        corpus, root, split, where: as of `load_corpus`.
        limit: utterances at most, chosen alike over classes, and in each of them over speakers.

    Attributes:
        conditions: all of them, the clean one first.
        trials: the utterances.
        network, extractor, device: the model, and where it runs.
        unreadable: utterance → why it cannot be read, of those that were met so far; they are tried again by each run.

    Raises:
        ModelError: the model cannot be loaded.
        CorpusError: the corpus cannot be opened.
        RobustnessError: it lacks a class, or PyAV lacks a codec.
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
        batch_size = 1 if self._judges_frames else BATCH  # alone, because frames of padding would be judged, too
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
        try:
            self.conditions = make_conditions(out / "sounds")
        except ValueError as error:
            raise RobustnessError(f"{error} PyAV's own wheel has it: pip install --force-reinstall av.") from None
        self.unreadable: dict[str, str] = {}

    def measure(self, condition: Condition, progress: Callable[[int], None] | None = None) -> Measured:
        """
        Scores what has no score under this condition yet, and takes the equal error rate.

        Args:
            progress: called with the number of utterances of each batch.

        Raises:
            RobustnessError: the model gives no finite score.
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

    def _judge(self, condition: Condition, rows: Sequence[int]) -> tuple[dict[str, float], dict[str, str]]:
        """Rows → the scores of their utterances, and why others have none under this condition."""
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
                left_out[utterance] = str(error).replace("<bytes>", "what the codec leaves", 1)
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
        """As strict with what a condition leaves as reading is with a recording."""
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
    The utterances of a corpus, or a choice of them that is the same in every run.

    Args:
        corpus, root, split, where, limit: as of `RobustnessRun`.
        by_length: whether utterances of like length are put together, so that little is padding.
        batch_size: utterances of a batch.

    Attributes:
        rows: of the whole corpus, by their numbers.
        utterances, labels, speakers: of chosen numbers, their ids, classes and speakers; `speakers` is None where
            they are not known of all.
        batches: chosen numbers, in the order and the company in which they are scored.
        fingerprint: of what was chosen.
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
        said = open_rows(corpus, split, columns_read=("utterance_id", "speaker_id"), **place)
        self.rows = open_rows(corpus, split, columns_read=("utterance_id", "audio"), **place)
        everything = [said[row] for row in range(len(said))]  # names only: audio stays where it is
        chosen = range(len(everything)) if limit is None else _choose(everything, said.labels, limit)
        self.utterances = {row: everything[row]["utterance_id"] for row in chosen}
        self.labels = {row: int(said.labels[row]) for row in chosen}
        speakers = {row: everything[row]["speaker_id"] for row in chosen}
        self.speakers = speakers if all(speakers.values()) else None
        for label, name in enumerate(LABEL_NAMES):
            if label not in self.labels.values():
                raise RobustnessError(f"{root}: no utterance of {corpus} is {name}, but an EER needs both classes.")
        sizes = self.rows.sizes() if by_length else None
        order = list(chosen) if sizes is None else sorted(chosen, key=lambda row: sizes[row])
        self.batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        text = json.dumps([[self.utterances[row], self.labels[row]] for row in chosen])
        self.fingerprint = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def __len__(self) -> int:
        return len(self.utterances)

    def count(self, label: str) -> int:
        """Utterances of a class."""
        return sum(LABEL_NAMES[value] == label for value in self.labels.values())


def _choose(rows: Sequence[Mapping[str, Any]], labels: np.ndarray, limit: int) -> list[int]:
    """
    `limit` numbers of rows, classes in turn and in each of them speakers in turn, while there are any; which
    utterances of a speaker is drawn by their names. In the corpus's order.
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
        order.sort(key=turns.__getitem__)  # stable: within a turn it stays as it was
    return sorted(order[:limit])


class _Kept:
    """
    What is known of one condition: a line for each batch, which is there whole or, after a kill, not at all.

    Attributes:
        scores, left_out: by utterance.
        seconds: that they took.
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
        """Takes a batch in, on the disk too; one of unreadable utterances only leaves nothing."""
        if scores or left_out:
            line = {"seconds": round(seconds, 4), "scores": scores, "left_out": left_out}
            with explained(self._path), open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            self._take(line)

    def _take(self, line: dict[str, Any]) -> None:
        self.scores |= line["scores"]
        self.left_out |= line["left_out"]
        self.seconds += line["seconds"]
