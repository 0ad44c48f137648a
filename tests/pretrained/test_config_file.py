"""`config.json` after training: one field changes, all others stay."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nes2net_hf import Nes2NetForAudioClassification
from nes2net_hf.errors import Nes2NetError
from nes2net_hf.pretrained.config_file import change_config
from tests.helpers import tiny_model


def test_fields_change_and_all_others_stay(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    before = json.loads((tmp_path / "config.json").read_text())
    change_config(tmp_path, threshold=1.5)
    assert json.loads((tmp_path / "config.json").read_text()) == before | {"threshold": 1.5}
    assert Nes2NetForAudioClassification.from_pretrained(tmp_path).config.threshold == 1.5


def test_what_cannot_be_written_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "nes2net"}')

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(Nes2NetError, match=r"config\.json cannot be written: the disk is full"):
        change_config(tmp_path, threshold=1.5)
    assert (tmp_path / "config.json").read_text() == '{"model_type": "nes2net"}'
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
