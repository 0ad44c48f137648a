"""Tests that unfinished work continues only with the same settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nes2net_hf.errors import OutputError
from nes2net_hf.files import begin, check_same_work

WORK: dict[str, Any] = {"model": "a", "where": {"partition": ["dev"]}, "limit": 0, "rate": 0.5}


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"split": None},  # a setting that a later version added, at its default
        {"where": {"partition": ("dev",)}},  # JSON has no tuples
    ],
)
def test_the_same_work_continues(tmp_path: Path, changed: dict[str, Any]) -> None:
    record = tmp_path / "work" / "what.json"
    begin(record, WORK)
    kept = record.read_bytes()
    begin(record, WORK | changed)
    assert record.read_bytes() == kept
    check_same_work(tmp_path, WORK | changed, WORK)


@pytest.mark.parametrize(
    ("changed", "key", "began", "now"),
    [
        ({"model": "b"}, "model", '"a"', '"b"'),
        ({"where": {}}, "where", '{"partition": ["dev"]}', "{}"),
        ({"limit": None}, "limit", "0", "none"),  # zero is a value
        ({"rate": 0.0}, "rate", "0.5", "0.0"),
        ({"split": "eval"}, "split", "none", '"eval"'),
        ({"conv_bias": False}, "conv_bias", "none", "false"),  # an absent one may mean true
        ({"where": {"speaker": ["s" * 100]}}, "where", '{"partition": ["dev"]}', '{"speaker": ["' + 45 * "s" + "…"),
    ],
)
def test_other_work_is_refused_with_both_values(
    tmp_path: Path, changed: dict[str, Any], key: str, began: str, now: str
) -> None:
    begin(tmp_path / "what.json", WORK)
    with pytest.raises(OutputError) as refused:
        begin(tmp_path / "what.json", WORK | changed)
    assert str(refused.value) == (
        f"{key}: {tmp_path} began with {began}, not {now}: use the same value to continue, remove {tmp_path}, or "
        "name another output."
    )
    missing = {key: value for key, value in WORK.items() if key != "model"}
    with pytest.raises(OutputError, match=r"^model: .* not none"):  # a setting that this work lacks
        begin(tmp_path / "what.json", missing)


def test_checksums_are_not_printed_and_the_place_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as refused:
        check_same_work("out", {"weights": "0" * 32}, {"weights": "1" * 32}, "name another folder")
    assert str(refused.value) == "out began with other weights: remove it, or name another folder."


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_a_damaged_record_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "what.json").write_bytes(content)
    with pytest.raises(OutputError, match=r"what\.json cannot be read: remove .*, or name another"):
        begin(tmp_path / "what.json", WORK)
