"""A model and its exported graph, which takes seconds to trace."""

from __future__ import annotations

from pathlib import Path

import pytest

from nes2net_hf.pretrained.export import export
from nes2net_hf.pretrained.onnx import GRAPH
from tests.helpers import quick_model, saved


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a calibrated model of normalised windows."""
    calibration = {"scale": 2.0, "offset": 0.5, "prior": 0.5}
    fields = {"layer_aggregation": "weighted_sum", "threshold": -0.5, "calibration": calibration}
    return saved(quick_model(**fields), tmp_path_factory.mktemp("quick"), do_normalize=True)


@pytest.fixture(scope="session")
def exported(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `nes2net export` made of it."""
    out = tmp_path_factory.mktemp("exported") / "out"
    lines: list[str] = []
    result = export(model, out, report=lines.append)
    assert result.difference <= 1e-5 and result.int8_difference is None
    assert result.size == (out / GRAPH).stat().st_size and f"{result.size / 1e6:.1f} MB" in "\n".join(lines)
    assert f"opset {result.opset}" in "\n".join(lines) and f"{result.difference:.1e}" in "\n".join(lines)
    return out
