"""CSV works with every file name, can be continued, and contains no formula."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from nes2net_hf.detection import Result, Stretch, WindowScore
from nes2net_hf.detection.writers import COLUMNS, CsvWriter, RowFile
from nes2net_hf.files.spreadsheets import as_cell, csv_row, csv_rows, from_cell
from nes2net_hf.samples import FOLDER as SAMPLES

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
    assert csv_rows(whole.replace("\n", "\r\n")) == csv_rows(whole)  # as saved by a spreadsheet on Windows
    assert csv_rows(csv_row(["a" * 200_000])) == [["a" * 200_000]]


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a recording of each name. One of them is broken."""
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
    assert done.code == 1 and f"{len(NAMES) - 1} judged, 1 failed" in done.err
    header, *rows = csv_rows(out.read_bytes().decode("utf-8-sig", "surrogateescape"))
    columns = {name: [row[place] for row in rows] for place, name in enumerate(header)}
    assert [from_cell(cell) for cell in columns["file"]] == NAMES
    assert not [cell for name in ("file", "error") for cell in columns[name] if cell[:1] in tuple("=+-@\t\r\n")]
    assert columns["error"][3].startswith("'-1.flac") and float(columns["score"][0]) != 0
    with open(out, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:  # as other programs read it
        assert [from_cell(row["file"]) for row in csv.DictReader(file)] == NAMES

    shutil.copy(SAMPLES / "spoof.flac", calls / "-1.flac")
    assert "1 judged, 0 failed" in nes2net("detect", *arguments, "--resume", "--", *NAMES).err
    before = out.read_bytes()
    assert "0 judged, 0 failed" in nes2net("detect", *arguments, "--resume", "--", *NAMES).err
    assert out.read_bytes() == before
    out.write_bytes(before[: before.rindex(b"\n", 0, -1) + 40])  # as if killed in the last row
    assert "1 judged, 0 failed" in nes2net("detect", *arguments, "--resume", "--", *NAMES).err
    assert out.read_bytes() == before


# The columns that version 0.1.0 wrote.
OLD = (
    "file", "channel", "duration", "score", "label", "llr", "spoof_probability", "prior", "threshold",
    "min_window_score", "min_window_start", "windows", "spoofed", "warnings", "model", "schema_version", "error",
)  # fmt: skip


def test_a_file_of_the_first_version_goes_on(nes2net: Any, tiny_model_dir: Path, calls: Path) -> None:
    out = calls.parent / "out.csv"
    windows = '"[{""start"": 0.0, ""end"": 4.0375, ""score"": -1.5}]"'
    spoofed = '"[{""start"": 1.2, ""end"": 2.1, ""score"": -3.4}]"'
    fields = {"score": -1.5, "label": "spoof", "threshold": 0.0, "model": tiny_model_dir}
    fields |= {"windows": windows, "spoofed": spoofed}
    rows = [",".join(OLD)]
    names = [name for name in NAMES if name != "'=quoted.flac" and name != "''-.flac"]  # these look like ours
    for name in names:
        shown = name.encode("utf-8", "backslashreplace").decode()
        quoted = shown.replace('"', '""')
        cell = f'"{quoted}"' if set(shown) & set('",\n') else shown  # version 0.1.0 did not quote a CR
        rows.append(",".join(str({"file": cell, "schema_version": 1, **fields}.get(column, "")) for column in OLD))
    old = ("\n".join(rows) + "\n").encode()
    out.write_bytes(old)
    arguments = ("--model", tiny_model_dir, "--output", out, "--resume")
    done = nes2net("detect", *arguments, "--", *names)
    assert done.code == 0 and "0 judged, 0 failed" in done.err
    header, *found = csv_rows(out.read_bytes().decode("utf-8-sig", "surrogateescape"))
    assert set(header) == set(COLUMNS) and len(found) == len(names)
    assert {row[header.index("spoofed")] for row in found} == {"1.20-2.10 (-3.40)"}
    assert out.with_name("out.csv.old").read_bytes() == old  # the copy has the windows
    assert "1 judged" in nes2net("detect", *arguments, "--", *names, "''-.flac").err
    assert out.with_name("out.csv.old").read_bytes() == old


def test_scores_are_read_from_a_file_of_the_first_version(tmp_path: Path) -> None:
    from nes2net_hf.evaluation import read_scores

    rows = [
        {"file": "x/a.wav", "score": 1.5, "label": "bonafide", "windows": '"[{""start"": 0.0}]"', "duration": 3.0},
        {"file": "x/b.wav", "error": "x/b.wav is broken."},
    ]
    lines = [",".join(OLD), *(",".join(str(row.get(column, "")) for column in OLD) for row in rows)]
    (tmp_path / "old.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = read_scores(tmp_path / "old.csv")
    assert found.scores.tolist() == [1.5] and found.ids.tolist() == ["x/a.wav"]  # type: ignore[union-attr]


def test_no_cell_is_longer_than_a_spreadsheet_takes(tmp_path: Path) -> None:
    windows = [WindowScore(4.0 * n, 4.0 * n + 4.0375, -1.234567) for n in range(900)]
    stretches = [Stretch(1.8 * n, 1.8 * n + 0.62, -3.4) for n in range(2000)]
    warnings = ["it clips: 12.5 % of its samples lie at full scale", "the file holds less sound than its header says"]
    hour = Result(
        "=an hour.wav", duration=3600.0, score=-1.5, label="spoof", windows=windows, spoofed=stretches,
        warnings=warnings, model="m",
    )  # fmt: skip
    short = Result("b.wav", duration=3.0, score=-1.5, label="spoof", windows=windows[:1], spoofed=[], model="m")
    with RowFile(tmp_path / "v.csv") as file:
        writer = CsvWriter(file)
        writer.write(hour)
        writer.write(short)
    with open(tmp_path / "v.csv", newline="", encoding="utf-8-sig") as file:
        first, second = csv.DictReader(file)
    assert max(len(cell) for row in (first, second) for cell in row.values()) < 1000
    assert first["spoofed"].startswith("0.00-0.62 (-3.40); 1.80-2.42 (-3.40); ")
    assert first["spoofed"].endswith("; 34.20-34.82 (-3.40); and 1980 more") and second["spoofed"] == ""
    assert "windows" not in first and first["file"] == "'=an hour.wav"


def test_files_begin_with_a_mark_and_streams_do_not(nes2net: Any, tiny_model_dir: Path, calls: Path) -> None:
    out = calls.parent / "out.csv"
    arguments = ("--model", tiny_model_dir, "--format", "csv")
    nes2net("detect", *arguments, "--output", out, "--", "plain.flac")
    assert out.read_bytes().startswith(b"\xef\xbb\xbffile,")
    assert nes2net("detect", *arguments, "--", "plain.flac").out.startswith("file,")
    out.write_bytes(out.read_bytes()[3:])  # as version 0.1.0 did, or an editor
    done = nes2net("detect", *arguments, "--output", out, "--resume", "--", "plain.flac", "голос 🎙.flac")
    assert "1 judged" in done.err and out.read_bytes().count(b"\xef\xbb\xbf") == 1
    assert out.read_bytes().startswith(b"\xef\xbb\xbffile,")


def test_json_lines_hold_them_too(nes2net: Any, tiny_model_dir: Path, calls: Path) -> None:
    out = calls.parent / "out.jsonl"
    arguments = ("--model", tiny_model_dir, "--output", out)
    nes2net("detect", *arguments, "--", *NAMES)
    lines = out.read_bytes().decode().split("\n")[:-1]
    assert [json.loads(line)["file"] for line in lines] == NAMES
    assert "0 judged, 1 failed" in nes2net("detect", *arguments, "--resume", "--", *NAMES).err


def test_scores_are_read_from_it(nes2net: Any, tiny_model_dir: Path, calls: Path) -> None:
    out, keys = calls.parent / "out.csv", calls.parent / "keys.csv"
    names = ["=1+1.flac", "'quoted.flac", "@sum.flac", "plain.flac"]
    nes2net("detect", "--model", tiny_model_dir, "--output", out, "--", *names)
    rows = [f"{Path(name).stem},{('spoof', 'bonafide')[row % 2]}" for row, name in enumerate(names)]
    keys.write_text("\n".join(["utterance_id,label", *rows]) + "\n", encoding="utf-8")
    done = nes2net("evaluate", out, "--keys", keys, "--json", "--resamples", 100)
    assert done.code == 0 and json.loads(done.out)["n_bonafide"] == 2
