"""Writes an evaluation as one JSON object, as Markdown, and as an HTML page that needs no network."""

from __future__ import annotations

import base64
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import scipy

from ..files import sha256_of
from ..metrics import Difference, Interval
from ..version import __version__
from .figures import Evaluation, Row


@dataclass(frozen=True)
class Provenance:
    """How, when and from which files metrics were computed."""

    command: str
    files: Mapping[str, str]
    """Name → SHA-256."""
    date: str
    versions: str


def provenance(command: str, files: Sequence[Path]) -> Provenance:
    """Returns the provenance of metrics that are computed now from these files."""
    sums = {str(path): sha256_of(path) for path in files if path.is_file()}
    versions = (
        f"nes2net_hf {__version__}, Python {platform.python_version()}, numpy {np.__version__}, "
        f"scipy {scipy.__version__}"
    )
    return Provenance(command, sums, datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"), versions)


def to_json(evaluation: Evaluation) -> dict[str, Any]:
    """Returns JSON. Rates and costs are fractions, Cllr is in bits, and `intervals` are [low, high] at 95 %."""
    figures = evaluation.intervals
    content: dict[str, Any] = {
        "name": evaluation.name,
        "scored": dict(evaluation.scored),
        "n_bonafide": evaluation.n_bonafide,
        "n_spoof": evaluation.n_spoof,
        "eer": figures.eer.estimate,
        "eer_threshold": evaluation.eer_threshold,
        "min_dcf": figures.min_dcf.estimate,
        "min_dcf_threshold": evaluation.min_dcf_threshold,
        "act_dcf": figures.act_dcf.estimate,
        "cllr": figures.cllr.estimate,
        "min_cllr": evaluation.min_cllr,
        "auc": evaluation.auc,
        "intervals": {name: [interval.low, interval.high] for name, interval in figures._asdict().items()},
        "interval_unit": figures.eer.unit,
        "costs": {
            "miss": evaluation.costs.miss,
            "false_alarm": evaluation.costs.false_alarm,
            "spoof_prior": evaluation.costs.spoof_prior,
        },
    }
    if evaluation.asv is not None:
        content["asv"] = evaluation.asv._asdict()
        content |= {f"min_tdcf_{form}": value for form, value in evaluation.min_tdcf.items()}
    if evaluation.t_eer is not None:
        content |= {"t_eer": evaluation.t_eer.eer, "t_eer_thresholds": list(evaluation.t_eer[1:])}
    if evaluation.min_adcf is not None:
        content["min_adcf"] = evaluation.min_adcf
    if evaluation.decisions is not None:
        content["at_threshold"] = {"threshold": evaluation.threshold, **evaluation.decisions._asdict()}
    if evaluation.segments:
        content["segment_eer"] = evaluation.segments
    if evaluation.tracing:
        content["tracing"] = {"accuracy": _traced(evaluation.tracing)[0], "confusion": evaluation.tracing}
    content["breakdown"] = [
        {
            "group": row.group,
            "value": row.value,
            "n_bonafide": row.n_bonafide,
            "n_spoof": row.n_spoof,
            "eer": row.eer.estimate,
            "eer_interval": None if math.isnan(row.eer.low) else [row.eer.low, row.eer.high],
            "min_dcf": row.min_dcf,
        }
        for row in evaluation.breakdown
    ]
    content["warnings"] = evaluation.warnings
    return content


def headline(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Returns names and values of the pooled metrics, with intervals, as text for people."""
    figures, costs = evaluation.intervals, evaluation.costs
    rows = [
        ("bona fide / spoof", f"{evaluation.n_bonafide:,} / {evaluation.n_spoof:,}"),
        ("EER", percent(figures.eer)),
        ("min DCF", _plain(figures.min_dcf)),
        ("actual DCF", _plain(figures.act_dcf)),
        ("Cllr, bits", _plain(figures.cllr)),
        ("min Cllr, bits", f"{evaluation.min_cllr:.4f}"),
        ("AUC", f"{evaluation.auc:.4f}"),
    ]
    for form, value in evaluation.min_tdcf.items():
        rows.append((f"min t-DCF, {form} form", f"{value:.4f}"))
    if evaluation.t_eer is not None:
        rows.append(("t-EER", f"{100 * evaluation.t_eer.eer:.2f} %"))
    if evaluation.min_adcf is not None:
        rows.append(("min a-DCF", f"{evaluation.min_adcf:.4f}"))
    for step, value in evaluation.segments.items():
        rows.append((f"EER of {step if step == 'ranges' else 'segments of ' + step}", f"{100 * value:.2f} %"))
    if evaluation.tracing:
        accuracy, count = _traced(evaluation.tracing)
        rows.append(("attack named rightly", f"{100 * accuracy:.2f} % of {count:,} spoofed"))
        for attack, named in evaluation.tracing.items():
            most = sorted(named.items(), key=lambda pair: -pair[1])[:3]
            rows.append((f"  {attack}, named as", ", ".join(f"{name} {number:,}" for name, number in most)))
    if evaluation.decisions is not None:
        found = evaluation.decisions
        rows.append(
            (
                f"at threshold {evaluation.threshold:g}",
                f"accuracy {found.accuracy:.4f}, F1 {found.f1:.4f}, misses {100 * found.miss_rate:.2f} %, "
                f"false alarms {100 * found.false_alarm_rate:.2f} %",
            )
        )
    rows.append(
        (
            "costs",
            f"miss {costs.miss:g}, false alarm {costs.false_alarm:g}, prior probability of spoofing "
            f"{costs.spoof_prior:g}",
        )
    )
    return rows


def _traced(tracing: dict[str, dict[str, int]]) -> tuple[float, int]:
    """Returns the share of trials whose attack was named rightly, and how many there are."""
    count = sum(sum(named.values()) for named in tracing.values())
    return sum(named.get(attack, 0) for attack, named in tracing.items()) / count, count


def groups(evaluation: Evaluation) -> list[tuple[str, list[Row]]]:
    """Returns the rows of the breakdown by group."""
    return [(name, list(rows)) for name, rows in groupby(evaluation.breakdown, lambda row: row.group)]


def percent(interval: Interval | Difference) -> str:
    """Formats a rate in percent, with its bounds if it has any."""
    if math.isnan(interval.low):
        return f"{100 * interval.estimate:.2f} % (few speakers)"
    return f"{100 * interval.estimate:.2f} % ({100 * interval.low:.2f} to {100 * interval.high:.2f})"


def write_report(
    folder: Path,
    evaluations: Sequence[Evaluation],
    differences: Sequence[Difference],
    plots: Sequence[tuple[str, Path]],
    source: Provenance,
) -> None:
    """
    Writes `report.md`, and `report.html` with the plots embedded.

    Args:
        differences: of every system after the first, from the first.
        plots: captions and PNGs in `folder`.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent, encoding="utf-8"),
        undefined=jinja2.StrictUndefined,
        autoescape=jinja2.select_autoescape(["html"]),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["percent"] = percent
    fields = {
        "evaluations": evaluations,
        "headlines": [headline(evaluation) for evaluation in evaluations],
        "groups": [groups(evaluation) for evaluation in evaluations],
        "differences": list(zip(evaluations[1:], differences, strict=True)),
        "plots": [(caption, path.name, _embedded(path)) for caption, path in plots],
        "source": source,
    }
    for name in ("report.md", "report.html"):
        (folder / name).write_text(environment.get_template(name).render(**fields), encoding="utf-8")


def _plain(interval: Interval) -> str:
    return f"{interval.estimate:.4f} ({interval.low:.4f} to {interval.high:.4f})"


def _embedded(png: Path) -> str:
    return base64.b64encode(png.read_bytes()).decode("ascii")
