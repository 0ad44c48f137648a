"""Calibrates a model on a corpus: scores it, fits, measures on held-out halves, stores. For `nes2net calibrate`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ..calibration import Calibration, CalibrationError, fit_calibration
from ..errors import OutputError, UsageError, option
from ..files import atomic_folder, check_same_work
from ..metrics import cllr, equal_error_rate, min_cllr
from ..pretrained.bases import describe_base, write_base
from ..pretrained.config_file import change_config
from ..pretrained.fingerprint import fingerprint
from ..pretrained.load import load_model
from ..reference import Population, check_share
from .figures import Trials, match
from .keys import keys_of_corpus
from .score_files import read_scores
from .scoring import score_corpus
from .survey import Survey, describe, first_half


def calibrate(
    model: str,
    scores: Path,
    *,
    corpus: str,
    root: str,
    split: str | None = None,
    where: Mapping[str, Sequence[str]] | None = None,
    prior: float = 0.5,
    undecided: float | None = None,
    revision: str | None = None,
    batch_size: int = 16,
) -> Calibration:
    """
    Returns a model's calibration, fitted on a corpus. Its `provenance` says what it was fitted on. It also has Cllr in
    bits, before and after, on held-out trials: two halves, each calibrated on the other. Its `population` has the
    distribution of the scores, and counts the recordings by speaker, duration, codec and so on.

    Args:
        model: folder, Hub id or official checkpoint.
        scores: Parquet file of the scores. It is written if it does not exist; otherwise it must be of this model and
            corpus.
        corpus, root, split, where: see `load_corpus`.
        prior: prior probability of spoofing that weights the fit, in (0, 1).
        undecided: the accepted share of errors to store: see `Population.band`. The provenance then has the share of
            held-out trials that are `undecided`, and the errors among all of a class and among the decided.
        revision: revision of the model on the Hub.
        batch_size: utterances per batch.

    Raises:
        UsageError: `scores` does not end in `.parquet`.
        OutputError: `scores` holds scores of another model or corpus.
        ModelError, CorpusError: the model or the corpus cannot be opened.
        CalibrationError: the scores cannot be calibrated.
    """
    if scores.suffix != ".parquet":
        raise UsageError(
            f"{option('scores')} {scores} must end in .parquet: only Parquet records which model scored which corpus."
        )
    if not 0 < prior < 1:
        raise UsageError(f"{option('prior')} must be between 0 and 1, got {prior}.")
    if undecided is not None:
        check_share(undecided)
    what: dict[str, Any] = {"corpus": corpus, "root": root, "split": split, "where": where, "all_windows": True}
    if scores.exists():
        _check_scores(scores, model, revision, what)
    else:
        score_corpus(model, scores, revision=revision, batch_size=batch_size, **what)
    trials = match(read_scores(scores), keys_of_corpus(corpus, split, root=root, where=where))
    bonafide, spoof = trials.by_class
    fitted = fit_calibration(bonafide, spoof, prior)
    population = _population(trials, corpus, root, split, where)
    fitted = replace(fitted, population=population, undecided=undecided)
    held_out = _held_out(trials, prior)
    if undecided is not None:
        held_out |= _undecided(trials, fitted, undecided)
    return replace(
        fitted,
        provenance={
            "corpus": corpus,
            **({"split": split} if split else {}),
            **({"where": where} if where else {}),
            "n_bonafide": bonafide.size,
            "n_spoof": spoof.size,
            "eer": round(equal_error_rate(bonafide, spoof).eer, 6),
            **held_out,
            "date": datetime.now(timezone.utc).date().isoformat(),
        },
    )


def store_calibration(
    calibration: Calibration,
    folder: Path,
    model: str | None = None,
    revision: str | None = None,
    surveyed: Survey | None = None,
) -> None:
    """
    Stores a calibration in `config.json` of a model folder, with the threshold where the log-likelihood ratio is 0.

    Args:
        folder: the model folder; if `model` is given, a new folder for a copy of it.
        model: folder, Hub id or official checkpoint of the model to copy.
        revision: revision of the model on the Hub.
        surveyed: see `survey`; without it, `detect` does not tell which recordings are unlike those of the corpus.

    Raises:
        OutputError, DiskError: the folder cannot be written.
    """
    familiarity = surveyed.familiarity if surveyed is not None else None
    if calibration.population is not None:
        known = {"familiarity": familiarity is not None, "correlation": surveyed.correlation if surveyed else []}
        calibration = replace(calibration, population=calibration.population | known)
    fields = {"calibration": calibration.to_dict(), "threshold": calibration.score(0.0)}
    if model is None:
        if familiarity is not None:
            familiarity.save(folder)
        change_config(folder, **fields)
        return
    network, extractor = load_model(model, revision, torch.device("cpu"), "float32")
    with atomic_folder(folder) as fresh:
        network.save_pretrained(fresh)
        extractor.save_pretrained(fresh)
        change_config(fresh, **fields)
        if familiarity is not None:
            familiarity.save(fresh)
        base = describe_base(model, revision)
        if base.license or base.bases or base.demonstration:
            write_base(base, fresh)  # the same weights have the same licence and limits


def _check_scores(path: Path, model: str, revision: str | None, what: Mapping[str, Any]) -> None:
    """
    Raises:
        OutputError: the file holds scores of another model or corpus, or does not say of which.
    """
    try:
        metadata = (pq.read_schema(path).metadata or {}).get(b"scored")
    except (OSError, pa.ArrowInvalid):
        metadata = None
    another = f"name another file with {option('scores')}"
    if metadata is None:
        raise OutputError(f"{path} does not record what was scored, and with which model: {another}.")
    network, extractor = load_model(model, revision, torch.device("cpu"), "float32")
    wanted = {**what, "weights": fingerprint(network, extractor)}  # not the model's name, which may have changed
    recorded = json.loads(metadata)
    began, now = ({key: side.get(key) or None for key in wanted} for side in (recorded, wanted))
    check_same_work(path, began, now, another)


def _held_out(trials: Trials, prior: float) -> dict[str, Any]:
    """Returns Cllr before and after on held-out halves, its minimum, and what was halved: speakers or utterances."""
    is_bonafide, first, by_speaker = trials.keys.labels == 1, *_halves(trials)
    calibrated = np.empty(len(trials.scores))
    for seen in (first, ~first):
        if not (seen & is_bonafide).any() or not (seen & ~is_bonafide).any():
            raise CalibrationError("one half of the trials has only one class: use a corpus with more speakers.")
        fitted = fit_calibration(trials.scores[seen & is_bonafide], trials.scores[seen & ~is_bonafide], prior)
        calibrated[~seen] = fitted.llr(trials.scores[~seen])
    return {
        "cllr_before": round(cllr(*trials.by_class), 6),
        "cllr_after": round(cllr(calibrated[is_bonafide], calibrated[~is_bonafide]), 6),
        "min_cllr": round(min_cllr(*trials.by_class), 6),
        "halves_by": "speaker" if by_speaker else "utterance",
    }


def _halves(trials: Trials) -> tuple[np.ndarray, bool]:
    """Returns which trials are in the first half (N,), and whether speakers were halved, or utterances."""
    known = trials.keys.columns.get("speaker_id")
    speakers = [None] * len(trials.keys) if known is None else known.tolist()
    return first_half(trials.keys.labels, speakers, trials.keys.ids.tolist()), all(speakers)


def _population(
    trials: Trials, corpus: str, root: str, split: str | None, where: Mapping[str, Sequence[str]] | None
) -> dict[str, Any]:
    """Returns what `config.calibration` keeps about the trials: see `Population.of`."""
    rows = ", ".join(f"{column} {' or '.join(values)}" for column, values in (where or {}).items())
    parts = [part for part in (split, rows) if part]
    found: dict[str, Any] = {"name": f"{corpus} ({'; '.join(parts)})" if parts else corpus}
    for kind, label in (("bonafide", 1), ("spoof", 0)):
        chosen = trials.keys.labels == label
        columns = {name: values[chosen] for name, values in trials.keys.columns.items()}
        found[kind] = {
            "recordings": int(chosen.sum()),
            **{
                f"{name}s": len({value for value in columns[column] if value is not None})
                for name, column in _COUNTED[kind].items()
                if column in columns
            },
            **{f"by_{name}": _counts(columns[name]) for name in _TOLD if name in columns},
        }
    described = list(describe(corpus, root, split, where))
    for kind, label in (("bonafide", 1), ("spoof", 0)):
        files = [info for its_label, info in described if its_label == label]
        found[kind]["by_file_codec"] = _counts(info.codec for info in files)
        found[kind]["by_sampling_rate"] = _counts(info.sampling_rate for info in files)
        seconds = [info.duration for info in files if info.duration is not None]
        if seconds:
            found[kind]["seconds"] = np.quantile(seconds, [0, 0.05, 0.5, 0.95, 1]).round(2).tolist()
    for kind, scores in Population.of_scores(found["name"], *trials.by_class).kept().items():
        found[kind]["scores"] = scores
    return found


_COUNTED = {"bonafide": {"speaker": "speaker_id"}, "spoof": {"speaker": "speaker_id", "attack": "attack"}}
_TOLD = ("duration", "codec", "transmission", "language", "gender", "source")
_MOST = 20  # values of a column that the population counts; the others are counted together


def _counts(values: Iterable[Any]) -> dict[str, int]:
    counted = Counter("unknown" if value is None else str(value) for value in values)
    told = dict(counted.most_common(_MOST))
    return told | {"other": counted.total() - sum(told.values())} if len(counted) > _MOST else told


def _undecided(trials: Trials, fitted: Calibration, share: float) -> dict[str, Any]:
    """
    Returns the share of held-out trials that are undecided, and the shares of errors. Each half is judged by the
    scores of the other.

    Raises:
        CalibrationError: there are too few trials for that.
    """
    is_bonafide, first = trials.keys.labels == 1, _halves(trials)[0]
    below, above = np.empty(len(is_bonafide), bool), np.empty(len(is_bonafide), bool)
    for seen in (first, ~first):
        kept = Population.of_scores("", trials.scores[seen & is_bonafide], trials.scores[seen & ~is_bonafide])
        low, high = kept.band(share, fitted.score(0.0))
        below[~seen], above[~seen] = trials.scores[~seen] < low, trials.scores[~seen] > high
    rejected, accepted = below & is_bonafide, above & ~is_bonafide
    decided = below | above
    return {
        "undecided": round(float(1 - decided.mean()), 6),
        "bonafide_as_spoof": round(float(rejected.sum() / is_bonafide.sum()), 6),
        "spoof_as_bonafide": round(float(accepted.sum() / (~is_bonafide).sum()), 6),
        "errors_if_decided": round(float((rejected | accepted).sum() / max(1, decided.sum())), 6),
    }
