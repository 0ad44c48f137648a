"""Model cards: one renderer for all, its templates and sources in `model_cards/`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined


def sources() -> Path:
    """The folder `model_cards/`: in a wheel it lies in the package, in a checkout beside `src`."""
    package = Path(__file__).parent
    inside = package / "model_cards"
    return inside if inside.is_dir() else package.parents[1] / "model_cards"


def render(template: str, **fields: Any) -> str:
    """
    A template of `model_cards/`, filled.

    Raises:
        jinja2.UndefinedError: the template names a field that is not given.
    """
    environment = Environment(
        loader=FileSystemLoader(sources(), encoding="utf-8"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(**fields)


def variant_title(variant: str) -> str:
    """`backend_variant` of a configuration, as the paper writes it."""
    return {"nes2net": "Nes2Net", "nes2net_x": "Nes2Net-X"}[variant]


def read_training_corpora() -> dict[str, dict[str, Any]]:
    """Of corpora that models are trained on: `title`, `what` in a sentence, `licence` where known, `address`."""
    return yaml.safe_load((sources() / "training_corpora.yaml").read_text(encoding="utf-8"))


def read_benchmark(name: str) -> dict[str, Any]:
    """
    A benchmark's `title`, what it `covers`, its `limits`, the published figures in `columns` and `conditions`, and a
    `note` on them; of `demo` also the `warning` and the `limits` of a demonstration `model`.
    """
    return yaml.safe_load((sources() / "benchmarks" / f"{name}.yaml").read_text(encoding="utf-8"))
