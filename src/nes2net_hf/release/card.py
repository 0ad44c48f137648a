"""Writes the card of a released model from the contents of its folder."""

from __future__ import annotations

import csv
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2
import torch
import transformers
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..cards import read_benchmark, render, sources, variant_title
from ..corpus_facts import CorpusFacts, read_corpus_facts, training_corpora
from ..errors import ReleaseError
from ..modeling_nes2net import Nes2NetForAudioClassification, Nes2NetForAudioFrameClassification
from ..pretrained.bases import Base

_HUB_LICENSES = {
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "gpl-2.0", "gpl-3.0", "lgpl-3.0", "agpl-3.0", "cc0-1.0",
    "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0",
}  # fmt: skip
_CAPTIONS = {
    "breakdown": "EER by group of trials, with 95 % intervals",
    "det": "Detection error trade-off",
    "attacks": "EER by attack and codec",
    "calibration": "Calibration of the raw scores",
    "scores": "Scores of both classes",
}
_UNFILLED = ("[More Information Needed]", "TODO", "FIXME", "{{", "}}", "Undefined")


@dataclass(frozen=True)
class CardEvaluation:
    """Figures of `nes2net evaluate` in the folder."""

    name: str
    """Name of the benchmark, or the user's name for the data."""
    file: str
    """Path in the folder."""
    figures: dict[str, Any]
    """As `nes2net_hf.evaluation.to_json` returns them."""
    traced: bool
    """Whether the file of the scores records that these weights made them."""
    pictures: Mapping[str, str] = field(default_factory=dict)
    """Kind, such as `det` → path in the folder."""


def benchmarks() -> list[str]:
    """Returns the benchmarks whose published figures the package includes."""
    names = (path.stem for path in (sources() / "benchmarks").glob("*.yaml"))
    return sorted(name for name in names if name != "checkpoints")


def write_card(
    folder: Path,
    network: Nes2NetForAudioClassification | Nes2NetForAudioFrameClassification,
    *,
    repo_id: str,
    benchmark: str | None,
    license: str,
    base: Base | None = None,
    dtype: str,
    evaluations: Sequence[CardEvaluation],
    datasets: Sequence[str],
) -> None:
    """
    Writes `folder/README.md` from the model and from `recipe.yaml`, `metrics.jsonl`, `robustness.json` and
    `emissions.csv`, if the folder has them.

    Raises:
        ReleaseError: the benchmark is unknown, a figure is missing, or a field is not filled.
    """
    if benchmark is not None and benchmark not in benchmarks():
        raise ReleaseError(f"--benchmark {benchmark} is not known: choose one of {', '.join(benchmarks())}.")
    recipe = _yaml(folder / "recipe.yaml")
    config, encoder = network.config, network.config.encoder_config
    of_frames = isinstance(network, Nes2NetForAudioFrameClassification)
    carbon = _carbon(folder / "emissions.csv")
    try:
        fields = {
            "metadata": _metadata(repo_id, license, evaluations, datasets, recipe, of_frames, carbon).to_yaml(),
            "of_frames": of_frames,
            "carbon": carbon,
            "robustness": _robustness(folder / "robustness.json"),
            "has_robustness_picture": (folder / "robustness.png").is_file(),
            "audit": _audit(folder / "audit.json"),
            "corpora": _corpora(recipe),
            "captions": _CAPTIONS,
            "repo_id": repo_id,
            "name": repo_id.rpartition("/")[2],
            "license": license,
            "dtype": dtype,
            "config": config,
            "variant": variant_title(config.backend_variant),
            "encoder": f"{encoder.model_type} encoder of {encoder.num_hidden_layers} layer(s)",
            "parameters": f"{sum(one.numel() for one in network.parameters()) / 1e6:.1f}",
            "recipe": recipe,
            "recipe_text": (folder / "recipe.yaml").read_text(encoding="utf-8") if recipe else None,
            "curve": _curve(folder / "metrics.jsonl", recipe),
            "has_picture": (folder / "curves.png").is_file(),
            "datasets": list(datasets),
            "evaluations": [_readable(one) for one in evaluations],
            "benchmark": None if benchmark is None else read_benchmark(benchmark),
            "demonstration": read_benchmark("demo")["model"] if config.demonstration else None,
            "bases": list(base.chain()) if base else [],
            "environment": _environment(),
        }
        text = render("release.md", **fields)
    except jinja2.UndefinedError as error:
        raise ReleaseError(f"the card has an unfilled field: {error.message}.") from None
    unfilled = next((mark for mark in _UNFILLED if mark in text), None)
    if unfilled:
        raise ReleaseError(f"the card has an unfilled field: it contains {unfilled!r}.")
    card = ModelCard(text)  # parsed as the Hub does, which finds errors
    card.save(folder / "README.md")


def hub_license(spdx: str) -> dict[str, Any]:
    """Returns the metadata of a licence. The Hub has its own names for common licences, and `other` for the rest."""
    name = spdx.lower().removesuffix("-only").removesuffix("-or-later")
    if name in _HUB_LICENSES:
        return {"license": name}
    return {"license": "other", "license_name": name, "license_link": "LICENSE"}


def _metadata(
    repo_id: str,
    license: str,
    evaluations: Sequence[CardEvaluation],
    datasets: Sequence[str],
    recipe: dict[str, Any] | None,
    of_frames: bool,
    carbon: float | None,
) -> ModelCardData:
    results = []
    for evaluation in evaluations:
        for kind, name, factor in (("eer", "EER, per cent", 100), ("cllr", "Cllr, bits", 1)):
            results.append(
                EvalResult(
                    task_type="audio-classification",
                    task_name="Audio Classification",
                    dataset_type=evaluation.name,
                    dataset_name=_title(evaluation.name),
                    metric_type=kind,
                    metric_name=name,
                    metric_value=round(factor * _figure(evaluation, kind), 4),
                )
            )
    return ModelCardData(
        library_name="transformers",
        pipeline_tag=None if of_frames else "audio-classification",  # the Hub has no pipeline for frames
        **hub_license(license),
        tags=["anti-spoofing", "deepfake-detection", "nes2net"],
        datasets=list(datasets) or None,
        base_model=_base_model(recipe),
        model_name=repo_id.rpartition("/")[2],
        eval_results=results or None,
        co2_eq_emissions=None if carbon is None else {"emissions": round(carbon, 3), "source": "codecarbon"},
    )


def _base_model(recipe: dict[str, Any] | None) -> str | None:
    """Returns the Hub id of the encoder or model that training began with, or None."""
    name = (recipe or {}).get("model", {}).get("pretrained")
    return name if name and name.count("/") == 1 and not Path(name).exists() else None


def _figure(evaluation: CardEvaluation, key: str) -> Any:
    try:
        return evaluation.figures[key]
    except KeyError:
        raise ReleaseError(f"{evaluation.file} lacks {key}: run nes2net evaluate --report again.") from None


def _title(name: str) -> str:
    return str(read_benchmark(name)["title"]) if name in benchmarks() else name


def _readable(evaluation: CardEvaluation) -> dict[str, Any]:
    """Formats the figures for people."""
    intervals = _figure(evaluation, "intervals")
    rows = []
    for what, key, factor, digits in (
        ("EER, %", "eer", 100, 2),
        ("min DCF", "min_dcf", 1, 4),
        ("actual DCF", "act_dcf", 1, 4),
        ("Cllr, bits", "cllr", 1, 4),
    ):
        value = f"{factor * _figure(evaluation, key):.{digits}f}"
        low, high = (f"{factor * bound:.{digits}f}" for bound in intervals[key])
        rows.append((what, value, f"{low} to {high}"))
    rows += [("min Cllr, bits", f"{_figure(evaluation, 'min_cllr'):.4f}", "not resampled")]
    rows += [("AUC", f"{_figure(evaluation, 'auc'):.4f}", "not resampled")]
    for what, key, factor, digits in (
        ("min t-DCF, 2021 form", "min_tdcf_2021", 1, 4),
        ("min t-DCF, 2019 form", "min_tdcf_2019", 1, 4),
        ("t-EER, %", "t_eer", 100, 2),
        ("min a-DCF", "min_adcf", 1, 4),
    ):
        if key in evaluation.figures:
            rows.append((what, f"{factor * evaluation.figures[key]:.{digits}f}", "not resampled"))
    for step, value in evaluation.figures.get("segment_eer", {}).items():
        of = "ranges" if step == "ranges" else f"segments of {step}"
        rows.append((f"EER of {of}, %", f"{100 * value:.2f}", "not resampled"))
    costs = _figure(evaluation, "costs")
    return {
        "title": _title(evaluation.name),
        "file": evaluation.file,
        "n_bonafide": _figure(evaluation, "n_bonafide"),
        "n_spoof": _figure(evaluation, "n_spoof"),
        "unit": _figure(evaluation, "interval_unit"),
        "costs": f"miss {costs['miss']:g}, false alarm {costs['false_alarm']:g}, prior {costs['spoof_prior']:g}",
        "rows": rows,
        "groups": [
            (name, [_readable_row(row) for row in rows])
            for name, rows in groupby(_figure(evaluation, "breakdown"), lambda row: row["group"])
        ],
        "traced": evaluation.traced,
        "scored": _figure(evaluation, "scored"),
        "pictures": evaluation.pictures,
        "warnings": _figure(evaluation, "warnings"),
    }


def _readable_row(row: dict[str, Any]) -> dict[str, str]:
    bounds = row["eer_interval"]
    return {
        "value": row["value"],
        "n_bonafide": f"{row['n_bonafide']:,}",
        "n_spoof": f"{row['n_spoof']:,}",
        "eer": f"{100 * row['eer']:.2f}",
        "interval": "few speakers" if bounds is None else f"{100 * bounds[0]:.2f} to {100 * bounds[1]:.2f}",
        "min_dcf": f"{row['min_dcf']:.4f}",
    }


def _robustness(path: Path) -> dict[str, Any] | None:
    """Returns what was measured, and the worst condition of each group."""
    if not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    judged = [row for row in found["conditions"] if row["eer"] is not None]
    grouped = [list(rows) for _, rows in groupby(judged, lambda row: row["group"])]
    rows = [_readable_condition(max(group, key=lambda row: row["eer"])) for group in grouped]
    return {key: found[key] for key in ("corpus", "split", "bonafide", "spoof")} | {"rows": rows}


def _audit(path: Path) -> dict[str, Any] | None:
    """Returns which cues leak, how many duplicates there are, and the conditions that the model was judged under."""
    if not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    rows = [
        _readable_condition(row) | {"shift": "" if row["shift"] is None else f"{row['shift']:.2f}"}
        for row in found["conditions"]
        if row["eer"] is not None
    ]
    leaks = [f"{row['cue']} ({100 * row['eer']:.1f} %)" for row in found["cues"] if row["leaks"]]
    counts = {"bonafide": found["bonafide"], "spoof": found["spoof"], "across": found["across_partitions"]}
    return {"corpus": found["corpus"], "leaks": leaks, "rows": rows, **counts}


def _readable_condition(row: dict[str, Any]) -> dict[str, str]:
    return {
        "group": row["group"],
        "condition": row["condition"],
        "eer": f"{100 * row['eer']:.2f}",
        "interval": f"{100 * row['low']:.2f} to {100 * row['high']:.2f}",
    }


def _corpora(recipe: dict[str, Any] | None) -> dict[str, CorpusFacts | None]:
    """Returns the names of the recipe's training corpora → what is known about them, if anything."""
    return {name: read_corpus_facts().get(name) for name in training_corpora(recipe or {})}


def _carbon(path: Path) -> float | None:
    """Returns grams of CO2 equivalent, summed over all runs of `codecarbon monitor`."""
    if not path.is_file():
        return None
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return 1000 * sum(float(row["emissions"]) for row in csv.DictReader(file))
    except (TypeError, ValueError):
        raise ReleaseError(
            f"{path.name}: the column emissions is not numeric: remove the file, or let codecarbon write it."
        ) from None


def _curve(path: Path, recipe: dict[str, Any] | None) -> dict[str, Any] | None:
    """Summarises `metrics.jsonl`: epochs, minutes, and the best epoch by the recipe's own measure."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
    rules = (recipe or {}).get("validation", {})
    select = rules.get("select", "dev_eer")
    judged = [line for line in lines if line.get(select) is not None]
    if not judged:
        return None
    # `min` takes the first of equals. The extra `train`, which has the trainer's own rule, may be absent here.
    best = min(reversed(judged) if rules.get("ties") == "later" else judged, key=lambda line: line[select])
    return {
        "epochs": lines[-1]["epoch"],
        "best": best["epoch"],
        "dev_eer": f"{100 * best['dev_eer']:.2f}",
        "select": select,
        "minutes": f"{sum(line.get('seconds', 0) for line in lines) / 60:.1f}",
    }


def _environment() -> str:
    from ..version import __version__

    return (
        f"nes2net_hf {__version__}, torch {torch.__version__}, transformers {transformers.__version__}, "
        f"Python {platform.python_version()}"
    )


def _yaml(path: Path) -> dict[str, Any] | None:
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
