"""Render model cards from the templates and data in `model_cards/`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined


def sources() -> Path:
    """Returns the folder `model_cards/`: inside the package in a wheel, next to `src` in a checkout."""
    package = Path(__file__).parent
    inside = package / "model_cards"
    return inside if inside.is_dir() else package.parents[1] / "model_cards"


def render(template: str, **fields: Any) -> str:
    """
    Returns a template of `model_cards/`, filled with `fields`.

    Raises:
        jinja2.UndefinedError: a field of the template is missing.
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
    """Returns the paper's name for a configuration's `backend_variant`."""
    return {"nes2net": "Nes2Net", "nes2net_x": "Nes2Net-X"}[variant]


def read_benchmark(name: str) -> dict[str, Any]:
    """
    Returns a benchmark's `title`, what it `covers`, its `limits`, the published figures in `columns` and `conditions`,
    and a `note` on them; for `demo` also the `warning` and the `limits` of a demonstration `model`.
    """
    return yaml.safe_load((sources() / "benchmarks" / f"{name}.yaml").read_text(encoding="utf-8"))
