"""CSV survives every file name, goes on where it was, and holds no formula."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from nes2net_hf.releasing import SAMPLES
from nes2net_hf.spreadsheets import as_cell, csv_row, csv_rows, from_cell

NAMES = [
    "plain.flac",
    "=1+1.flac",
    "+49 30.flac",
    "-1.flac",
    "@sum.flac",
    "'quoted.flac",
    "'=quoted.flac",
    "''-.flac",
    "\ttab.flac",
    "\rcarriage.flac",
    "\nline.flac",
    "two\nlines.flac",
    "two\rlines.flac",
    "two\r\nlines.flac",
    'a "b", c.flac',
    "a,b;c.flac",
    "line\u2028separator\x85\x0b\x1c.flac",
    os.fsdecode(b"caf\xe9.flac"),
    "\\udce9.flac",
    "голос 🎙.flac",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_cell_gives_its_name_back_and_is_no_formula(name: str) -> None:
    cell = as_cell(name)
    assert from_cell(cell) == name
    assert cell[0] not in "=+-@\t\r\n"
    assert csv_rows("file,score,as it is\n" + csv_row([cell, "-1.5", name]))[1:] == [[cell, "-1.5", name]]


def test_a_row_that_was_cut_off_is_left_out() -> None:
    whole = csv_row(["a", "b"]) + csv_row(['1 "\n', "2\n"])
    for length in range(len(whole)):
        assert csv_rows(whole[:length]) == ([["a", "b"]] if length >= 4 else [])
    assert csv_rows(whole) == [["a", "b"], ['1 "\n', "2\n"]]
    assert csv_rows(whole.replace("\n", "\r\n")) == csv_rows(whole)  # through a spreadsheet on Windows
    assert csv_rows(csv_row(["a" * 200_000])) == [["a" * 200_000]]


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recording of each name, one of them broken, in the working folder."""
    folder = tmp_path / "calls"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in NAMES:
        shutil.copy(SAMPLES / "spoof.flac", folder / name)
    (folder / "-1.flac").write_bytes(b"no audio")
    return folder


def test_every_name_is_judged_once_and_goes_on(nes2net: Any, tiny_model_dir: Path, calls: Path) -> None:
    out = calls.parent / "out.csv"
    arguments = ("--model", tiny_model_dir, "--output", out)
    done = nes2net("detect", *arguments, "--", *NAMES)
    assert done.code == 1 and f"{len(NAMES) - 1} judged, 1 could not be" in done.err
    header, *rows = csv_rows(out.read_bytes().decode("utf-8", "surrogateescape"))
    columns = {name: [row[place] for row in rows] for place, name in enumerate(header)}
    assert [from_cell(cell) for cell in columns["file"]] == NAMES
    assert not [cell for name in ("file", "error") for cell in columns[name] if cell[:1] in tuple("=+-@\t\r\n")]
    assert columns["error"][3].startswith("'-1.flac") and float(columns["score"][0]) != 0
    with open(out, newline="", encoding="utf-8", errors="surrogateescape") as file:  # as others read it
        assert [from_cell(row["file"]) for row in csv.DictReader(file)] == NAMES

    shutil.copy(SAMPLES / "spoof.flac", calls / "-1.flac")
    assert "1 judged, 0 could not be" in nes2net("detect", *arguments, "--resume", "--", *NAMES).err
    before = out.read_bytes()
    assert "0 judged, 0 could not be" in nes2net("detect", *arguments, "--resume", "--", *NAMES).err
    assert out.read_bytes() == before
    out.write_bytes(before[: before.rindex(b"\n", 0, -1) + 40])  # killed in its last row
    assert "1 judged, 0 could not be" in nes2net("detect", *arguments, "--resume", "--", *NAMES).err
    assert out.read_bytes() == before


# As version 0.1.0 wrote it.
OLD = (
    "file", "channel", "duration", "score", "label", "llr", "spoof_probability", "prior", "threshold",
    "min_window_score", "min_window_start", "windows", "spoofed", "warnings", "model", "schema_version", "error",
)  # fmt: skip


def test_a_file_of_the_first_version_goes_on(nes2net: Any, tiny_model_dir: Path, calls: Path) -> None:
    out = calls.parent / "out.csv"
    fields = {"score": -1.5, "label": "spoof", "threshold": 0.0, "windows": "[]", "model": tiny_model_dir}
    rows = [",".join(OLD)]
    names = [name for name in NAMES if name != "'=quoted.flac" and name != "''-.flac"]  # which look like ours
    for name in names:
        shown = name.encode("utf-8", "backslashreplace").decode()
        quoted = shown.replace('"', '""')
        cell = f'"{quoted}"' if set(shown) & set('",\n') else shown  # and a CR as it is
        rows.append(",".join(str({"file": cell, "schema_version": 1, **fields}.get(column, "")) for column in OLD))
    out.write_bytes(("\n".join(rows) + "\n").encode())
    arguments = ("--model", tiny_model_dir, "--output", out, "--resume")
    done = nes2net("detect", *arguments, "--", *names)
    assert done.code == 0 and "0 judged, 0 could not be" in done.err
    header, *found = csv_rows(out.read_bytes().decode("utf-8", "surrogateescape"))
    assert set(OLD) <= set(header) and len(found) == len(names)
    assert "1 judged" in nes2net("detect", *arguments, "--", *names, "''-.flac").err


def test_json_lines_hold_them_too(nes2net: Any, tiny_model_dir: Path, calls: Path) -> None:
    out = calls.parent / "out.jsonl"
    arguments = ("--model", tiny_model_dir, "--output", out)
    nes2net("detect", *arguments, "--", *NAMES)
    lines = out.read_bytes().decode().split("\n")[:-1]
    assert [json.loads(line)["file"] for line in lines] == NAMES
    assert "0 judged, 1 could not be" in nes2net("detect", *arguments, "--resume", "--", *NAMES).err


def test_scores_are_read_from_it(nes2net: Any, tiny_model_dir: Path, calls: Path) -> None:
    out, keys = calls.parent / "out.csv", calls.parent / "keys.csv"
    names = ["=1+1.flac", "'quoted.flac", "@sum.flac", "plain.flac"]
    nes2net("detect", "--model", tiny_model_dir, "--output", out, "--", *names)
    rows = [f"{Path(name).stem},{('spoof', 'bonafide')[row % 2]}" for row, name in enumerate(names)]
    keys.write_text("\n".join(["utterance_id,label", *rows]) + "\n", encoding="utf-8")
    done = nes2net("evaluate", out, "--keys", keys, "--json", "--resamples", 100)
    assert done.code == 0 and json.loads(done.out)["n_bonafide"] == 2
