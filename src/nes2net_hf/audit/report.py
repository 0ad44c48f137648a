"""Reports an audit as JSON, Markdown, table cells and a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..figure_style import FAINT, INK, SPOOF, new_figure, strip
from .corpus import LEAKS, AuditedCorpus, Leak
from .model import GROUPS, Moved

_NAMED = 5  # pairs of duplicates that a report names


def to_json(corpus: AuditedCorpus, model: Sequence[Moved], what: dict[str, Any]) -> dict[str, Any]:
    """Returns all results. Rates are fractions, shifts are in standard deviations of the unchanged scores."""
    conditions = [
        {
            "group": one.measured.group,
            "condition": one.measured.name,
            "bonafide": one.measured.bonafide,
            "spoof": one.measured.spoof,
            "eer": one.measured.eer and one.measured.eer.estimate,
            "low": one.measured.eer and one.measured.eer.low,
            "high": one.measured.eer and one.measured.eer.high,
            "shift": one.shift,
            "correlation": one.correlation,
            "left_out": one.measured.left_out,
        }
        for one in model
    ]
    return {**what, **corpus.to_json(), "leaks_below": LEAKS, "conditions": conditions}


def to_markdown(corpus: AuditedCorpus, model: Sequence[Moved], what: dict[str, Any]) -> str:
    lines = [f"# Audit of {what['title']}", "", "```bash", what["command"], "```", "", *conclusions(corpus, model), ""]
    lines += [
        f"## What tells the classes apart without listening: {corpus.bonafide} bona fide, {corpus.spoof} spoofed",
        "",
        "A classifier sees only the cue. It is trained and tested on different speakers, if they are known. EERs are "
        f"in %, with 95 % bootstrap intervals. A cue leaks if its interval is below {100 * LEAKS:g}.",
        "",
        "| cue | EER | 95 % interval | folds by | |",
        "|---|---:|---:|---|---|",
        *("| " + " | ".join(cue_cells(leak)) + " |" for leak in corpus.leaks),
        "",
        "## Duplicates",
        "",
        *duplicate_lines(corpus),
    ]
    if model:
        lines += [
            "",
            "## The model without them",
            "",
            "The shift is the mean change of the score of the same recording, in standard deviations of the unchanged "
            "scores.",
            "",
            "| | condition | EER | 95 % interval | shift | correlation | left out |",
            "|---|---|---:|---:|---:|---:|---:|",
            *("| " + " | ".join(model_cells(one)) + " |" for one in model),
            "",
            *(f"- **{group}**: {how}" for group, how in GROUPS.items()),
        ]
    return "\n".join(lines) + "\n"


def conclusions(corpus: AuditedCorpus, model: Sequence[Moved]) -> list[str]:
    """Returns what the figures say, in sentences."""
    leaks = [leak.cue for leak in corpus.leaks if leak.leaks]
    said = [f"These cues tell the classes apart without listening: {', '.join(leaks)}." if leaks else
            "No cue tells the classes apart clearly."]  # fmt: skip
    if corpus.duplicates.across:
        said.append(f"{corpus.duplicates.across} pairs of duplicates are in different partitions.")
    clean = model[0].measured.eer if model else None
    for one in model[1:]:
        row, eer = one.measured, one.measured.eer
        if eer is None or clean is None:
            continue
        if row.name == "non-speech only" and eer.high < LEAKS:
            said.append(f"The model separates the classes without speech: EER {100 * eer.estimate:.1f} %.")
        if row.group != "parts" and eer.low > clean.high:
            said.append(f"Its EER rises to {100 * eer.estimate:.1f} % with {row.group}, {row.name}.")
    return said


def cue_cells(leak: Leak) -> tuple[str, ...]:
    eer = leak.eer
    interval = f"{100 * eer.low:.1f} to {100 * eer.high:.1f}"
    return leak.cue, f"{100 * eer.estimate:.1f}", interval, leak.folds_by, "leaks" if leak.leaks else ""


def model_cells(one: Moved) -> tuple[str, ...]:
    eer, row = one.measured.eer, one.measured
    rate, interval = "none", "none"
    if eer is not None:
        rate, interval = f"{100 * eer.estimate:.1f}", f"{100 * eer.low:.1f} to {100 * eer.high:.1f}"
    numbers = ["none" if value is None else f"{value:.2f}" for value in (one.shift, one.correlation)]
    return row.group, row.name, rate, interval, *numbers, str(len(row.left_out) or "")


def duplicate_lines(corpus: AuditedCorpus) -> list[str]:
    """Returns how many pairs are equal and nearly equal, with the first of them."""
    found = corpus.duplicates
    lines = []
    for kind, pairs in (("equal", found.equal), ("nearly equal", found.near)):
        named = "; ".join(f"{first} = {second}" for first, second in pairs[:_NAMED])
        lines.append(f"{len(pairs)} pairs of recordings are {kind}{f': {named}' if named else ''}.")
    lines.append(f"{found.across} of the pairs are in different partitions, and {found.mixed} in different classes.")
    return lines


def plot_audit(corpus: AuditedCorpus, model: Sequence[Moved], path: Path) -> None:
    """Draws the EERs with their intervals: of the cues, and of the model under each condition."""
    rows = [(leak.cue, leak.eer, leak.leaks) for leak in corpus.leaks]
    rows += [
        (f"model: {one.measured.group}, {one.measured.name}", one.measured.eer, False)
        for one in model
        if one.measured.eer
    ]
    figure = new_figure(7, 0.9 + 0.28 * len(rows), dpi=150)
    panel = figure.subplots()
    for place, (_, eer, leaks) in enumerate(rows):
        color = SPOOF if leaks else INK
        panel.plot([100 * eer.low, 100 * eer.high], [place, place], color=color, linewidth=1.5)
        panel.plot(100 * eer.estimate, place, "o", color=color, markersize=4)
    panel.axvline(50, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
    panel.set_yticks(range(len(rows)), [name for name, *_ in rows], fontsize=8)
    panel.invert_yaxis()
    panel.set_xlim(0, max(65.0, *(100 * eer.high + 2 for _, eer, _ in rows)))
    panel.set_xlabel("EER in %, with 95 % interval; 50 % is chance", fontsize=8)
    strip(panel)
    figure.savefig(path, format="png", bbox_inches="tight")
