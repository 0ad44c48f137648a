"""Calibration of a model on a corpus: score, fit, measure on unseen halves, store. What `nes2net calibrate` runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ..calibration import Calibration, CalibrationError, fit_calibration, halves
from ..errors import UsageError
from ..files import atomic_folder, check_same_work
from ..metrics import cllr, equal_error_rate, min_cllr
from ..pretrained.bases import describe_base, write_base
from ..pretrained.config_file import change_config
from ..pretrained.fingerprint import fingerprint
from ..pretrained.load import load_model
from .figures import Trials, match
from .keys import keys_of_corpus
from .score_files import read_scores
from .scoring import score_corpus


def calibrate(
    model: str,
    scores: Path,
    *,
    corpus: str,
    root: str,
    split: str | None = None,
    where: Mapping[str, Sequence[str]] | None = None,
    prior: float = 0.5,
    revision: str | None = None,
    batch_size: int = 16,
) -> Calibration:
    """
    The calibration of a model by a corpus. Its `provenance` says what it was fitted on, and Cllr before and after, in
    bits, over trials that the fit has not seen: two halves, each calibrated on the other.

    Args:
        model: Hub id or folder.
        scores: Parquet file of the scores; written if it does not exist, and read if it holds those of this model and
            corpus.
        corpus, root, split, where: as of `load_corpus`.
        prior: prior probability of spoofing that the fit is weighted to, in (0, 1).
        revision: of the model, on the Hub.
        batch_size: utterances of a pass.

    Raises:
        UsageError: `scores` has another suffix than `.parquet`.
        OutputError: `scores` holds scores of another model or corpus.
        ModelError, CorpusError: the model or the corpus cannot be opened.
        CalibrationError: the scores cannot be calibrated.
    """
    if scores.suffix != ".parquet":
        raise UsageError(
            f"--scores {scores} must end in .parquet: only that format also says what was scored, and with what."
        )
    what: dict[str, Any] = {"corpus": corpus, "root": root, "split": split, "where": where, "all_windows": True}
    if scores.exists():
        _check_scores(scores, model, revision, what)
    else:
        score_corpus(model, scores, revision=revision, batch_size=batch_size, **what)
    trials = match(read_scores(scores), keys_of_corpus(corpus, split, root=root, where=where))
    bonafide, spoof = trials.by_class
    fitted = fit_calibration(bonafide, spoof, prior)
    return replace(
        fitted,
        provenance={
            "corpus": corpus,
            **({"split": split} if split else {}),
            **({"where": where} if where else {}),
            "n_bonafide": bonafide.size,
            "n_spoof": spoof.size,
            "eer": round(equal_error_rate(bonafide, spoof).eer, 6),
            **_unseen(trials, prior),
            "date": datetime.now(timezone.utc).date().isoformat(),
        },
    )


def store_calibration(
    calibration: Calibration, folder: Path, model: str | None = None, revision: str | None = None
) -> None:
    """
    Stores it in `config.json` of a model's folder, with the threshold at which the log-likelihood ratio is 0.

    Args:
        folder: the model's folder; if `model` is given, a folder to make, as a copy of that model.
        model: Hub id or folder.
        revision: of the model, on the Hub.

    Raises:
        OutputError, DiskError: the folder cannot be written.
    """
    fields = {"calibration": calibration.to_dict(), "threshold": calibration.score(0.0)}
    if model is None:
        change_config(folder, **fields)
        return
    network, extractor = load_model(model, revision, torch.device("cpu"), "float32")
    with atomic_folder(folder) as fresh:
        network.save_pretrained(fresh)
        extractor.save_pretrained(fresh)
        change_config(fresh, **fields)
        base = describe_base(model, revision)
        if base.license or base.bases or base.demonstration:
            write_base(base, fresh)  # its licence and limits are still those of these weights


def _check_scores(path: Path, model: str, revision: str | None, what: Mapping[str, Any]) -> None:
    """
    Raises:
        OutputError: the file holds scores of another model or corpus, or does not say of which.
    """
    try:
        said = (pq.read_schema(path).metadata or {}).get(b"scored")
    except (OSError, pa.ArrowInvalid):
        said = None
    network, extractor = load_model(model, revision, torch.device("cpu"), "float32")
    asked = {**what, "weights": fingerprint(network, extractor)}
    kept = json.loads(said) if said else {}
    check_same_work(path, {key: kept.get(key) for key in asked}, asked)  # the model may have another name now


def _unseen(trials: Trials, prior: float) -> dict[str, Any]:
    """Cllr before and after, and the lowest possible, over two halves; and what was halved: speakers or utterances."""
    known = trials.keys.columns.get("speaker_id")
    by_speaker = known is not None and all(known)
    is_bonafide = trials.keys.labels == 1
    if by_speaker:
        first = halves(known)  # type: ignore[arg-type]
    else:  # each class by itself
        first = np.empty(len(is_bonafide), bool)
        for chosen in (is_bonafide, ~is_bonafide):
            first[chosen] = halves(trials.keys.ids[chosen])
    calibrated = np.empty(len(trials.scores))
    for seen in (first, ~first):
        if not (seen & is_bonafide).any() or not (seen & ~is_bonafide).any():
            raise CalibrationError("a half of the trials has one class only: use a corpus with more speakers.")
        fitted = fit_calibration(trials.scores[seen & is_bonafide], trials.scores[seen & ~is_bonafide], prior)
        calibrated[~seen] = fitted.llr(trials.scores[~seen])
    return {
        "cllr_before": round(cllr(*trials.by_class), 6),
        "cllr_after": round(cllr(calibrated[is_bonafide], calibrated[~is_bonafide]), 6),
        "min_cllr": round(min_cllr(*trials.by_class), 6),
        "halves_by": "speaker" if by_speaker else "utterance",
    }
