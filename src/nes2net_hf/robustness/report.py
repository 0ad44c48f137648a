"""What came of `nes2net robustness`, as JSON, as Markdown, and as the cells of a table."""

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
    """Everything that was measured, and what it was measured with; rates are fractions."""
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
    """The table with what it is of, how the conditions are made, and the command."""
    trials, extractor = run.trials, run.extractor
    first = f"the first {extractor.window_length / SAMPLING_RATE:.2f} s"
    heard = "all" if extractor.length_policy == "whole" else first
    speakers = "" if trials.speakers is None else f" of {len(set(trials.speakers.values()))} speakers"
    lines = [
        f"# Robustness of {title(run)}",
        "",
        f"{trials.count('bonafide')} bona fide and {trials.count('spoof')} spoofed utterances{speakers}. Of each, the "
        f"model heard {heard}, in float32 on {run.device.type}. EER in %, with its 95 % interval by {unit(rows)} "
        f"({RESAMPLES} bootstrap resamples); seed {SEED}.",
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
    """What was measured on what."""
    what = run.what
    chosen = [what["split"], *(f"{column} {' or '.join(values)}" for column, values in what["where"].items())]
    return f"{short_name(what['model'])} on {', '.join([what['corpus'], *filter(None, chosen)])}"


def short_name(model: str) -> str:
    """A Hub id as it is; of a folder the last two names, because the last is often `best`."""
    return "/".join([part for part in model.replace(os.sep, "/").split("/") if part not in ("", ".", "..")][-2:])


def cells(row: Measured) -> tuple[str, ...]:
    """A row of the table as text."""
    rate = interval = "none"
    if row.eer is not None:
        rate = f"{100 * row.eer.estimate:.1f}"
        interval = f"{100 * row.eer.low:.1f} to {100 * row.eer.high:.1f}"
    left_out = str(len(row.left_out) or "")
    return row.group, row.name, rate, interval, str(row.bonafide), str(row.spoof), left_out


def unit(rows: Sequence[Measured]) -> str:
    """What the intervals draw again: speakers, or utterances."""
    return next((row.eer.unit for row in rows if row.eer is not None), "utterance")


def notes_on(run: RobustnessRun, rows: Sequence[Measured]) -> list[str]:
    """Which utterances have no score, and why: a sentence for each condition, and for unreadable files."""
    told = [("unreadable, under all conditions", run.unreadable)]
    told += [(f"{row.group}, {row.name}", row.left_out) for row in rows]
    return [_note(where, reasons) for where, reasons in told if reasons]


def _note(where: str, reasons: Mapping[str, str]) -> str:
    named = "; ".join(f"{name}: {reason.rstrip('.')}" for name, reason in list(reasons.items())[:3])
    more = f"; {len(reasons) - 3} more in robustness.json" if len(reasons) > 3 else ""
    return f"{where}: {len(reasons)} ({named}{more})."
