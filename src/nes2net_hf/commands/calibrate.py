"""`nes2net calibrate` and `nes2net fuse`."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import offering
from ..files import atomic_file, atomic_folder, check_suffix, claim
from .common import UsageError, as_utf8, be_quiet, ending, wanted

if TYPE_CHECKING:
    from ..calibration import Calibration
    from ..evaluation import Trials


@dataclass
class CalibrateOptions:
    """What `nes2net calibrate` was asked for."""

    model: str
    revision: str | None
    corpus: str
    root: str
    split: str | None
    where: list[str]
    prior: float
    scores: Path | None
    out: Path | None
    batch_size: int


@offering("split", "where")
def run_calibrate(options: CalibrateOptions) -> int:
    """Scores where that was not done, fits, says what it brings, and stores it; returns the exit code."""
    be_quiet()
    as_utf8(sys.stdout)
    interrupted = "Interrupted: what is scored is kept, and the same command goes on."
    with ExitStack() as stack, ending(interrupted, extra="eval") as end:
        from .. import evaluation as ev
        from ..calibration import fit_calibration
        from ..metrics import equal_error_rate

        where = wanted(options.where)
        target = _target(options, stack)
        path = options.scores or Path(f"{Path(options.model).name}-{options.corpus}-calibration.parquet")
        _score(options, path, where)
        keys = ev.keys_of_corpus(options.corpus, options.split, root=options.root, where=where)
        trials = ev.match(ev.read_scores(path), keys)
        bonafide, spoof = trials.by_class
        fitted = fit_calibration(bonafide, spoof, options.prior)
        before, after, lowest, unit = _unseen(trials, options.prior)
        provenance = {
            "corpus": options.corpus,
            **({"split": options.split} if options.split else {}),
            **({"where": where} if where else {}),
            "n_bonafide": bonafide.size,
            "n_spoof": spoof.size,
            "eer": round(equal_error_rate(bonafide, spoof).eer, 6),
            "cllr_before": round(before, 6),
            "cllr_after": round(after, 6),
            "min_cllr": round(lowest, 6),
            "halves_by": unit,
            "date": datetime.now(timezone.utc).date().isoformat(),
        }
        fitted = replace(fitted, provenance=provenance)
        _store(options, target, fitted)
        print(
            f"llr = {fitted.scale:.6g} * score + {fitted.offset:.6g}, weighted to a prior of spoof of {fitted.prior:g}"
        )
        print(
            f"Cllr of trials that the fit had not seen (halves by {unit}, each calibrated on the other): "
            f"{before:.4f} bits before, {after:.4f} after; the least possible is {lowest:.4f}"
        )
        print(f"stored in {target / 'config.json'}; its threshold is {fitted.score(0.0):.6g}, where the ratio is 0")
    return end.code


def _target(options: CalibrateOptions, stack: ExitStack) -> Path:
    """The folder whose configuration is to hold the calibration, claimed."""
    if options.out is not None:
        if options.out.exists():
            raise UsageError(f"--out {options.out} exists: name a folder to be made.")
        stack.enter_context(claim(options.out, "folder"))
        return options.out
    folder = Path(options.model)
    if not (folder / "config.json").is_file():
        raise UsageError(
            f"{options.model} is no folder on the disk: name one to write the calibrated model to, by --out."
        )
    stack.enter_context(claim(folder / "config.json"))
    return folder


def _score(options: CalibrateOptions, path: Path, where: dict[str, list[str]]) -> None:
    """Scores into `path`, unless it holds those of this model and corpus already."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch

    from ..evaluation.scoring import score_corpus
    from ..pretrained.fingerprint import fingerprint
    from ..pretrained.load import load_model

    if path.suffix != ".parquet":
        raise UsageError(f"--scores {path} must end in .parquet: it says what it was scored with, too.")
    if not path.exists():
        score_corpus(
            options.model,
            path,
            corpus=options.corpus,
            root=options.root,
            split=options.split,
            revision=options.revision,
            batch_size=options.batch_size,
            all_windows=True,
            where=where,
        )
        return
    try:
        said = (pq.read_schema(path).metadata or {}).get(b"scored")
    except (OSError, pa.ArrowInvalid):
        said = None
    what = json.loads(said) if said else {}
    network, extractor = load_model(options.model, options.revision, torch.device("cpu"), "float32")
    asked = {
        "corpus": options.corpus,
        "root": options.root,
        "split": options.split,
        "where": where,
        "all_windows": True,
    }
    asked["weights"] = fingerprint(network, extractor)
    other = [key for key, value in asked.items() if (what.get(key) or None) != (value or None)]
    if other:
        raise UsageError(
            f"{path} holds scores of another {' and '.join(other)}: remove it, or name another file by --scores."
        )


def _unseen(trials: Trials, prior: float) -> tuple[float, float, float, str]:
    """Cllr before and after, and the least, of two halves, each calibrated on the other; and what was halved by."""
    from ..calibration import CalibrationError, fit_calibration, halves
    from ..metrics import cllr, min_cllr

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
            raise CalibrationError("a half of the trials has one class only: take a corpus of more speakers.")
        fitted = fit_calibration(trials.scores[seen & is_bonafide], trials.scores[seen & ~is_bonafide], prior)
        calibrated[~seen] = fitted.llr(trials.scores[~seen])
    after = cllr(calibrated[is_bonafide], calibrated[~is_bonafide])
    return cllr(*trials.by_class), after, min_cllr(*trials.by_class), "speaker" if by_speaker else "utterance"


def _store(options: CalibrateOptions, target: Path, calibration: Calibration) -> None:
    if options.out is None:
        _store_in(target / "config.json", calibration)
        return
    import torch

    from ..pretrained.load import load_model

    network, extractor = load_model(options.model, options.revision, torch.device("cpu"), "float32")
    with atomic_folder(target) as folder:
        network.save_pretrained(folder)
        extractor.save_pretrained(folder)
        _store_in(folder / "config.json", calibration)


def _store_in(path: Path, calibration: Calibration) -> None:
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {"calibration": calibration.to_dict(), "threshold": calibration.score(0.0)}
    with atomic_file(path) as file:
        file.write(json.dumps(config, indent=2, sort_keys=True) + "\n")


@dataclass
class FuseOptions:
    """What `nes2net fuse` was asked for."""

    scores: list[Path]
    keys: Path | None
    benchmark: str | None
    split: str | None
    prior: float
    apply: Path | None
    out: Path | None


@offering("keys", "benchmark", "split")
def run_fuse(options: FuseOptions) -> int:
    """Fits weights, or applies them; returns the exit code."""
    as_utf8(sys.stdout)
    with ending(extra="eval") as end:
        if len(options.scores) < 2:
            raise UsageError("a fusion needs the scores of two systems or more.")
        if (options.keys is None) == (options.apply is None):
            raise UsageError("give --keys to fit the weights on, or --apply with weights that were fitted.")
        if options.out is None:
            raise UsageError(
                "name what to write by --out: the weights (JSON), or with --apply the fused scores (text)."
            )
        check_suffix(options.out, ".json" if options.apply is None else ".txt")
        with claim(options.out):
            (_fit if options.apply is None else _apply)(options)
    return end.code


def _fit(options: FuseOptions) -> None:
    from .. import evaluation as ev
    from ..calibration import fit_fusion
    from ..metrics import cllr, equal_error_rate

    assert options.keys is not None and options.out is not None
    keys = ev.read_keys(options.keys, options.benchmark, options.split)
    systems = [ev.match(ev.read_scores(path), keys) for path in options.scores]
    bonafide, spoof = (np.stack(scores) for scores in zip(*(system.by_class for system in systems), strict=True))
    weights, offset = fit_fusion(bonafide, spoof, options.prior)
    fused = weights @ bonafide + offset, weights @ spoof + offset
    content = {
        "systems": [path.name for path in options.scores],
        "weights": weights.tolist(),
        "offset": offset,
        "prior": options.prior,
        "n_bonafide": bonafide.shape[1],
        "n_spoof": spoof.shape[1],
    }
    with atomic_file(options.out) as file:
        file.write(json.dumps(content, indent=1) + "\n")
    for path, weight, system in zip(options.scores, weights, systems, strict=True):
        print(f"{path}: weight {weight:.6g}, EER {100 * equal_error_rate(*system.by_class).eer:.2f} %")
    print(
        f"fused, on the trials of the fit: EER {100 * equal_error_rate(*fused).eer:.2f} %, Cllr {cllr(*fused):.4f} "
        f"bits; weights in {options.out}"
    )


def _apply(options: FuseOptions) -> None:
    from .. import evaluation as ev
    from ..evaluation.score_files import find_trials

    assert options.apply is not None and options.out is not None
    try:
        content = json.loads(options.apply.read_text(encoding="utf-8"))
        weights, offset = np.array(content["weights"], float), float(content["offset"])
        content["systems"] = [str(name) for name in content["systems"]]
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"--apply {options.apply} holds no weights that `nes2net fuse` wrote.") from None
    if weights.size != len(options.scores):
        raise UsageError(
            f"--apply {options.apply} has {weights.size} weights, and {len(options.scores)} systems are given."
        )
    names = [path.name for path in options.scores]
    if names != content["systems"] and sorted(names) == sorted(content["systems"]):
        raise UsageError(
            f"--apply {options.apply} was fitted in the order {' '.join(content['systems'])}: give them so."
        )
    files = [ev.read_scores(path) for path in options.scores]
    ids = files[0].ids
    fused = np.full(files[0].scores.size, offset)
    for weight, file in zip(weights, files, strict=True):
        if ids is None or file.ids is None or len(file.ids) != len(ids):
            raise ev.EvaluationError(f"{file.path} and {files[0].path} must hold the same utterances.")
        rows = find_trials(file.ids, ids, file.path, file.are_files or files[0].are_files)
        absent = ids[rows < 0]
        if absent.size:
            raise ev.EvaluationError(f"{file.path} has no score of utterance {absent[0]}, which {files[0].path} has.")
        fused += weight * file.scores[rows]
    assert ids is not None
    lines = "".join(f"{name} {score:.9g}\n" for name, score in zip(ids, fused, strict=True))
    with atomic_file(options.out) as target:
        target.write(lines)
    print(f"{options.out}: {len(ids)} fused scores, as log-likelihood ratios")
