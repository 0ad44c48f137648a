"""Computes the metrics of one system on one set of trials, with intervals: pooled, and broken down by groups."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..errors import EvaluationError, option
from ..metrics import (
    ASVSPOOF5_COSTS,
    AsvErrorRates,
    Decisions,
    DetectionCosts,
    Difference,
    Interval,
    Intervals,
    TandemEqualErrorRate,
    auc,
    bootstrap,
    bootstrap_eer,
    compare_eer,
    decisions,
    equal_error_rate,
    min_adcf,
    min_cllr,
    min_dcf,
    min_tdcf,
    range_eer,
    segment_eer,
    tandem_eer,
)
from .asv import KINDS, AsvScores, asv_of_table
from .keys import Keys
from .score_files import ScoreFile, find_trials, numbers

# The groups of a breakdown, in order. Speakers are not among them, because each has too few trials.
_FACTORS = (
    "attack", "vocoder", "codec", "codec_setting", "transmission", "trim", "source", "phase", "gender", "language",
    "duration",
)  # fmt: skip
_DURATIONS = (1, 2, 4, 8)  # seconds: borders of the groups
_FEWEST_SPEAKERS = 5  # fewer do not represent other speakers
_NAMED = 3  # how many utterances a message names


@dataclass(frozen=True)
class Trials:
    """Scores and keys of the same N trials."""

    scores: np.ndarray
    keys: Keys
    frame_scores: list[Any] | None = None
    kinds: np.ndarray | None = None
    """(N,) target, nontarget, spoof …, if the score file has them."""
    asv: AsvScores | None = None
    """ASV scores of the same trials, if the score file has them."""
    attacks: np.ndarray | None = None
    """(N,) the kind of spoof that the model named, or None, if the score file has them."""
    by_speaker: bool = False
    """Whether intervals resample speakers: all are known, and there are enough."""
    scored: Mapping[str, Any] = field(default_factory=dict)
    """What the score file records about the model and the corpus."""

    @property
    def by_class(self) -> tuple[np.ndarray, np.ndarray]:
        """Scores of the bona fide and of the spoofed trials."""
        return self.scores[self.keys.labels == 1], self.scores[self.keys.labels == 0]

    @property
    def speakers(self) -> dict[str, Any]:
        """Speakers of both classes, as arguments of the bootstrap; empty if it resamples utterances."""
        known = self.keys.columns.get("speaker_id")
        if not self.by_speaker or known is None:
            return {}
        return {
            "bonafide_speakers": known[self.keys.labels == 1],
            "spoof_speakers": known[self.keys.labels == 0],
        }

    def take(self, rows: np.ndarray) -> Trials:
        """Returns some of the trials, with the same unit of resampling."""
        return Trials(self.scores[rows], self.keys.take(rows), by_speaker=self.by_speaker)


@dataclass(frozen=True)
class Row:
    """One row of a breakdown: trials with `value`. If no bona fide trial has a value, all of them are included."""

    group: str
    value: str
    n_bonafide: int
    n_spoof: int
    eer: Interval
    """The bounds are NaN if the bona fide trials have too few speakers to represent others."""
    min_dcf: float


@dataclass(frozen=True)
class Evaluation:
    """All metrics of one system. Rates and normalised costs are fractions; Cllr is in bits."""

    name: str
    n_bonafide: int
    n_spoof: int
    eer_threshold: float
    min_dcf_threshold: float
    min_cllr: float
    auc: float
    intervals: Intervals
    """EER, minimum and actual DCF and Cllr, with bounds."""
    costs: DetectionCosts
    min_tdcf: dict[str, float] = field(default_factory=dict)
    """By form (2019, 2021), if an ASV system is known."""
    asv: AsvErrorRates | None = None
    t_eer: TandemEqualErrorRate | None = None
    min_adcf: float | None = None
    """For scores of spoofing-robust speaker verification, with target and non-target trials."""
    decisions: Decisions | None = None
    """At `threshold`, if there is one."""
    threshold: float | None = None
    segments: dict[str, float] = field(default_factory=dict)
    """For a model of frames: EER of segments by resolution, and EER of ranges."""
    tracing: dict[str, dict[str, int]] = field(default_factory=dict)
    """Of spoofed trials by their attack, how often the model named which; `none` where it named none."""
    breakdown: list[Row] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    scored: Mapping[str, Any] = field(default_factory=dict)
    """The model and the corpus, if the score file records them."""


def match(file: ScoreFile, keys: Keys | None) -> Trials:
    """
    Returns the scores of a file in the order of the keys. Without keys, the labels in the file are used.

    Raises:
        EvaluationError: trials have no score, a class is absent, or nothing says which trials are bona fide.
    """
    if keys is None:
        keys = _own_keys(file)
        rows = np.arange(len(keys))
    else:
        rows = _rows_of(file, keys)
    for label, name in ((1, "bona fide"), (0, "spoofed")):
        if not (keys.labels == label).any():
            raise EvaluationError(f"{keys.source} has no {name} trials: error rates need both classes.")
    read = ("asv_score", "duration", "frame_scores", "attack")
    columns = {name: file.columns[name][rows] for name in read if name in file.columns}
    if "duration" in columns:
        seconds = numbers(file.path, "duration", columns["duration"])
        keys = replace(keys, columns={**keys.columns, "duration": _buckets(seconds)})
    frames = columns.get("frame_scores")
    speakers = keys.columns.get("speaker_id")
    kinds = None if file.kinds is None else file.kinds[rows]
    matched = replace(file, scores=file.scores[rows], ids=None, kinds=kinds, columns=columns)
    return Trials(
        matched.scores,
        keys,
        frame_scores=None if frames is None else list(frames),
        kinds=kinds,
        asv=asv_of_table(matched),
        attacks=columns.get("attack"),
        by_speaker=speakers is not None and all(speakers) and len(set(speakers)) >= _FEWEST_SPEAKERS,
        scored=file.scored,
    )


def _rows_of(file: ScoreFile, keys: Keys) -> np.ndarray:
    """Returns the row of each trial's score in the file (N,)."""
    if file.ids is None:
        raise EvaluationError(
            f"{file.path} has labels but no utterance ids: omit {option('keys')}, or add a column utterance_id."
        )
    rows = find_trials(file.ids, keys.ids, file.path, file.are_files)
    missing = keys.ids[rows < 0]
    if missing.size:
        raise EvaluationError(
            f"{file.path}: {len(missing)} of {len(keys)} trials of {keys.source} have no score "
            f"({_some(missing)}): score them, or choose the condition or split that was scored."
        )
    return rows


def strangers(file: ScoreFile, keys: Keys) -> list[str]:
    """Returns a warning if the keys lack the trials of some scores, in all conditions."""
    if file.ids is None:
        return []
    is_known = np.zeros(len(file.ids), bool)
    rows = find_trials(file.ids, keys.ids, file.path, file.are_files)
    is_known[rows[rows >= 0]] = True
    unknown = file.ids[~is_known]
    if not unknown.size:
        return []
    return [f"{len(unknown)} scores in {file.path} are ignored: {keys.source} has no such trials ({_some(unknown)})"]


def undecided(file: ScoreFile, keys: Keys) -> list[str]:
    """Returns a warning if `nes2net detect` gave no verdict on some of these trials. Their scores still count."""
    if file.ids is None or "undecided" not in file.columns:
        return []
    rows = find_trials(file.ids, keys.ids, file.path, file.are_files)
    reasons = Counter(why for why in file.columns["undecided"][rows[rows >= 0]] if why)
    if not reasons:
        return []
    named = ", ".join(f"{count} {why}" for why, count in reasons.most_common())
    count = reasons.total()
    return [f"{count} of {len(keys)} recordings have a score but no verdict ({named}): their scores are included"]


def evaluate(
    trials: Trials,
    name: str,
    *,
    costs: DetectionCosts = ASVSPOOF5_COSTS,
    asv: AsvScores | None = None,
    fixed_asv: AsvErrorRates | None = None,
    threshold: float | None = None,
    resamples: int = 1000,
) -> Evaluation:
    """
    Returns all metrics of one system.

    Args:
        asv: scores of an ASV system, for both forms of the t-DCF; by default those in the score file, if any. Without
            them, scores with target and non-target trials are treated as spoofing-robust speaker verification.
        fixed_asv: error rates of an ASV system whose scores are not public (ASVspoof 5), for the t-DCF.
        threshold: also evaluate decisions at this score.
        resamples: number of bootstrap resamples, of speakers if all are known.
    """
    bonafide, spoof = trials.by_class
    eer, dcf = equal_error_rate(bonafide, spoof), min_dcf(bonafide, spoof, costs)
    warnings = []
    if np.ptp(trials.scores) == 0:
        warnings.append("all scores are equal, so they do not separate bona fide from spoof")
    elif eer.eer > 0.5:
        warnings.append(
            f"the EER is {100 * eer.eer:.0f} %: the scores may be reversed, because higher must mean bona fide"
        )
    asv = asv or trials.asv
    rates = fixed_asv if asv is None else asv.error_rates
    tdcf: dict[str, float] = {}
    if rates is not None:
        try:
            tdcf = {form: min_tdcf(bonafide, spoof, rates, form=form) for form in ("2021", "2019")}
        except ValueError as error:  # the ASV system rejects every spoof, or accepts and rejects at random
            warnings.append(str(error).rstrip("."))
    return Evaluation(
        name=name,
        n_bonafide=bonafide.size,
        n_spoof=spoof.size,
        eer_threshold=eer.threshold,
        min_dcf_threshold=dcf.threshold,
        min_cllr=min_cllr(bonafide, spoof),
        auc=auc(bonafide, spoof),
        intervals=bootstrap(bonafide, spoof, costs=costs, resamples=resamples, **trials.speakers),
        costs=costs,
        min_tdcf=tdcf,
        asv=rates,
        t_eer=tandem_eer((asv.target, asv.nontarget, asv.spoof), asv.cm_scores) if asv and asv.cm_scores else None,
        min_adcf=_min_adcf(trials) if asv is None else None,
        decisions=None if threshold is None else decisions(bonafide, spoof, threshold),
        threshold=threshold,
        segments=_segments(trials),
        tracing=_tracing(trials),
        breakdown=list(_breakdown(trials, costs, resamples)),
        warnings=warnings,
        scored=trials.scored,
    )


def _tracing(trials: Trials) -> dict[str, dict[str, int]]:
    """Counts the kinds of spoof that the model named, by those of the keys; empty if either knows none."""
    known = trials.keys.columns.get("attack")
    counts: dict[str, dict[str, int]] = {}
    if trials.attacks is None or known is None:
        return counts
    for row in np.flatnonzero(trials.keys.labels == 0):
        if known[row]:
            named = counts.setdefault(str(known[row]), {})
            name = str(trials.attacks[row] or "none")
            named[name] = named.get(name, 0) + 1
    return {attack: counts[attack] for attack in sorted(counts)}


def _min_adcf(trials: Trials) -> float | None:
    """Returns None unless there are target, non-target and spoofed trials."""
    if trials.kinds is None or not {*KINDS} <= {*trials.kinds}:
        return None
    return min_adcf(*(trials.scores[trials.kinds == kind] for kind in KINDS))


def compare(systems: Sequence[Trials], resamples: int = 1000) -> list[Difference]:
    """Returns the EER of every later system minus that of the first, on the same resamples of the same trials."""
    first = systems[0]
    return [
        compare_eer(first.by_class, other.by_class, resamples=resamples, **first.speakers) for other in systems[1:]
    ]


def grid(trials: Trials, rows: str, columns: str) -> tuple[list[str], list[str], np.ndarray] | None:
    """
    Returns the values of two factors and the EER of each pair (R, C), NaN if a class is absent. Returns None if the
    trials lack a factor.
    """
    if rows not in trials.keys.columns or columns not in trials.keys.columns:
        return None
    row_values, column_values = (_values(trials.keys.columns[name]) for name in (rows, columns))
    table = np.full((len(row_values), len(column_values)), np.nan)
    for i, row in enumerate(row_values):
        part = trials.take(_belonging(trials.keys, rows, row))
        for j, column in enumerate(column_values):
            bonafide, spoof = part.take(_belonging(part.keys, columns, column)).by_class
            if bonafide.size and spoof.size:
                table[i, j] = equal_error_rate(bonafide, spoof).eer
    return row_values, column_values, table


def _breakdown(trials: Trials, costs: DetectionCosts, resamples: int) -> Iterator[Row]:
    for factor in _FACTORS:
        values = _values(trials.keys.columns[factor]) if factor in trials.keys.columns else []
        for value in values if len(values) > 1 else []:
            part = trials.take(_belonging(trials.keys, factor, value))
            bonafide, spoof = part.by_class
            if bonafide.size and spoof.size and len(part.scores) < len(trials.scores):
                yield breakdown_row(part, factor, value, costs, resamples)


def breakdown_row(part: Trials, group: str, value: str, costs: DetectionCosts, resamples: int) -> Row:
    """Returns the line of a breakdown for trials of both classes."""
    bonafide, spoof = part.by_class
    speakers = part.speakers
    if speakers and len(set(speakers["bonafide_speakers"])) < _FEWEST_SPEAKERS:
        interval = Interval(equal_error_rate(bonafide, spoof).eer, np.nan, np.nan, "speaker")
    else:
        interval = bootstrap_eer(bonafide, spoof, resamples=resamples, **speakers)
    return Row(group, value, bonafide.size, spoof.size, interval, min_dcf(bonafide, spoof, costs).dcf)


def _belonging(keys: Keys, factor: str, value: str) -> np.ndarray:
    """Returns which trials have this value (N,). If no bona fide trial has one (attacks), all of them count."""
    column = keys.columns[factor]
    chosen = column == value
    is_bonafide = keys.labels == 1
    if not any(column[is_bonafide] != None):  # noqa: E711 - of each element
        chosen = chosen | is_bonafide
    return chosen


def _values(column: np.ndarray) -> list[str]:
    return sorted({value for value in column if value is not None})


def _segments(trials: Trials) -> dict[str, float]:
    labels = trials.keys.segment_labels
    if trials.frame_scores is None or not labels:
        return {}
    found = {
        f"{step} ms": segment_eer(trials.frame_scores, labels[step], step).eer
        for step in sorted(labels)
        if step % 20 == 0
    }
    finest = min(labels)
    return {**found, "ranges": range_eer(trials.frame_scores, labels[finest], finest).eer}


def _own_keys(file: ScoreFile) -> Keys:
    if file.kinds is None:
        raise EvaluationError(f"{file.path} has no labels: pass {option('keys')}.")
    ids = file.ids if file.ids is not None else np.arange(file.scores.size).astype(str).astype(object)
    return Keys(str(file.path), ids, (file.kinds != "spoof").astype(np.int8), {})


def _buckets(seconds: np.ndarray) -> np.ndarray:
    names = [f"0 to {_DURATIONS[0]} s"]
    names += [f"{low} to {high} s" for low, high in itertools.pairwise(_DURATIONS)]
    names.append(f"{_DURATIONS[-1]} s and more")
    return np.array(names, dtype=object)[np.searchsorted(_DURATIONS, seconds, side="right")]


def _some(names: np.ndarray) -> str:
    return ", ".join(map(str, names[:_NAMED])) + (", …" if len(names) > _NAMED else "")
