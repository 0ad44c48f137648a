"""The table of encoders in docs/models.md is what the configurations give; each of them makes a model."""

from __future__ import annotations

import pytest

from nes2net_hf.configuration_nes2net import XLSR_300M
from tests.benchmarks.encoders import ENCODERS, HEADER, Encoder, config_of, parameters, row
from tests.helpers import ROOT

DOCUMENT = (ROOT / "docs/models.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda encoder: encoder.name)
def test_the_table_says_its_size(encoder: Encoder) -> None:
    config = config_of(encoder)
    assert f"| `{encoder.name}` | {parameters(config) / 1e6:,.0f} | " in DOCUMENT
    assert config.frames(64_600) == 201 and config.frame_samples == 320


@pytest.mark.slow
def test_the_whole_table_is_what_the_command_prints() -> None:
    assert "\n".join([HEADER, *map(row, ENCODERS)]) in DOCUMENT


def test_xls_r_is_the_configuration_that_the_package_carries() -> None:
    [xlsr] = [encoder for encoder in ENCODERS if encoder.name.endswith("xls-r-300m")]
    assert {name: XLSR_300M[name] for name in xlsr.fields} == xlsr.fields
