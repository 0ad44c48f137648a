"""Reports the results of `nes2net robustness` as JSON, Markdown and table cells."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import av
import torch

from ..audio import SAMPLING_RATE
from .conditions import GROUPS, SEED
from .run import CONFIDENCE, RESAMPLES, Measured, RobustnessRun

_LIBRARIES = ("torch", "transformers", "numpy", "scipy", "soxr", "soundfile", "av", "datasets")


def to_json(run: RobustnessRun, rows: Sequence[Measured], command: str) -> dict[str, Any]:
    """Returns all results, and what they were measured with. Rates are fractions."""
    return {
        "command": command,
        **run.what,
        "bonafide": run.trials.count("bonafide"),
        "spoof": run.trials.count("spoof"),
        "speakers": None if run.trials.speakers is None else len(set(run.trials.speakers.values())),
        "unreadable": run.unreadable,
        "confidence": CONFIDENCE,
        "resamples": RESAMPLES,
        "conditions": [
            {
                "group": row.group,
                "condition": row.name,
                "bonafide": row.bonafide,
                "spoof": row.spoof,
                "eer": row.eer and row.eer.estimate,
                "low": row.eer and row.eer.low,
                "high": row.eer and row.eer.high,
                "unit": row.eer and row.eer.unit,
                "left_out": row.left_out,
                "seconds_per_utterance": round(row.seconds, 4),
            }
            for row in rows
        ],
        "environment": {
            "device": str(run.device),
            "threads": torch.get_num_threads(),
            "platform": platform.platform(),
            "python": platform.python_version(),
            **{name: version(name) for name in _LIBRARIES},
            "libavcodec": ".".join(map(str, av.library_versions["libavcodec"])),
        },
    }


def to_markdown(run: RobustnessRun, rows: Sequence[Measured], command: str, has_plot: bool) -> str:
    """Returns the table, what was measured, how the conditions are made, and the command."""
    trials, extractor = run.trials, run.extractor
    first = f"the first {extractor.window_length / SAMPLING_RATE:.2f} s"
    heard = "all" if extractor.length_policy == "whole" else first
    speakers = "" if trials.speakers is None else f" of {len(set(trials.speakers.values()))} speakers"
    lines = [
        f"# Robustness of {title(run)}",
        "",
        f"{trials.count('bonafide')} bona fide and {trials.count('spoof')} spoofed utterances{speakers}. The "
        f"model heard {heard} of each, in float32 on {run.device.type}. EERs are in %, with 95 % intervals by "
        f"{unit(rows)} ({RESAMPLES} bootstrap resamples). The seed is {SEED}.",
        "",
        "```bash",
        command,
        "```",
        "",
    ]
    if has_plot:
        lines += ["![EER by condition](robustness.png)", ""]
    lines += [
        "| | condition | EER % | 95 % interval | bona fide | spoof | left out |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    lines += ["| " + " | ".join(cells(row)) + " |" for row in rows]
    lines += ["", "## Conditions", ""]
    lines += [f"- **{group}**: {how}" for group, how in GROUPS.items()]
    notes = notes_on(run, rows)
    if notes:
        lines += ["", "## Left out", "", *(f"- {note}" for note in notes)]
    return "\n".join(lines) + "\n"


def title(run: RobustnessRun) -> str:
    """Returns the model, the corpus and the selection."""
    what = run.what
    chosen = [what["split"], *(f"{column} {' or '.join(values)}" for column, values in what["where"].items())]
    return f"{short_name(what['model'])} on {', '.join([what['corpus'], *filter(None, chosen)])}"


def short_name(model: str) -> str:
    """Returns a Hub id unchanged, or the last two names of a folder, because the last one is often `best`."""
    return "/".join([part for part in model.replace(os.sep, "/").split("/") if part not in ("", ".", "..")][-2:])


def cells(row: Measured) -> tuple[str, ...]:
    """Returns a row of the table as text."""
    rate = interval = "none"
    if row.eer is not None:
        rate = f"{100 * row.eer.estimate:.1f}"
        interval = f"{100 * row.eer.low:.1f} to {100 * row.eer.high:.1f}"
    left_out = str(len(row.left_out) or "")
    return row.group, row.name, rate, interval, str(row.bonafide), str(row.spoof), left_out


def unit(rows: Sequence[Measured]) -> str:
    """Returns what the intervals resample: speakers or utterances."""
    return next((row.eer.unit for row in rows if row.eer is not None), "utterance")


def notes_on(run: RobustnessRun, rows: Sequence[Measured]) -> list[str]:
    """Returns which utterances have no score, and why: a sentence per condition, and one for unreadable files."""
    notes = [("unreadable, under all conditions", run.unreadable)]
    notes += [(f"{row.group}, {row.name}", row.left_out) for row in rows]
    return [_note(where, reasons) for where, reasons in notes if reasons]


def _note(where: str, reasons: Mapping[str, str]) -> str:
    named = "; ".join(f"{name}: {reason.rstrip('.')}" for name, reason in list(reasons.items())[:3])
    more = f"; {len(reasons) - 3} more in robustness.json" if len(reasons) > 3 else ""
    return f"{where}: {len(reasons)} ({named}{more})."
