"""`nes2net detect` as users run it: output, resumed runs, exit codes."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from nes2net_hf import __version__, detection, samples
from nes2net_hf.audio.windows import envelope
from nes2net_hf.detection import Detector
from tests.helpers import KEYS
from tests.recordings import encode, melody, voice

COMMAND = [sys.executable, "-m", "nes2net_cli"]


@pytest.fixture
def detect(nes2net: Any, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs `nes2net detect` with the tiny model, which is loaded only once."""
    loaded: dict[Any, Detector] = {}

    def make(model: str, **options: Any) -> Detector:
        key = (model, tuple(options.items()))
        loaded[key] = loaded.get(key) or Detector(model, **options)
        return loaded[key]

    monkeypatch.setattr(detection, "Detector", make)
    return lambda *arguments: nes2net("detect", "--model", tiny_model_dir, "--device", "cpu", *arguments)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of three recordings. The second is broken."""
    folder = tmp_path / "calls"
    folder.mkdir()
    (folder / "a.flac").write_bytes(encode(melody(3, 1), 16_000, "flac"))
    (folder / "b.wav").write_text("no audio")
    (folder / "c.flac").write_bytes(encode(np.stack([melody(3, 2), 0.5 * melody(3, 2)]), 16_000, "flac"))
    return folder


def test_one_json_object_a_line_and_exit_code_1_for_a_broken_file(detect: Any, folder: Path) -> None:
    run = detect(folder)
    assert run.code == 1
    assert [list(row) for row in run.rows] == [KEYS] * 3
    assert [bool(row["error"]) for row in run.rows] == [False, True, False]


def test_exit_code_0_when_all_were_judged(detect: Any, folder: Path) -> None:
    run = detect(folder / "a.flac", folder / "c.flac", "--channels", "each", "--threshold", "-50")
    assert run.code == 0
    assert [row["channel"] for row in run.rows] == [None, 0, 1]
    assert {row["label"] for row in run.rows} == {"bonafide"}
    assert {row["threshold"] for row in run.rows} == {-50.0}


def test_a_missing_file_is_a_row_not_wrong_usage(detect: Any, folder: Path) -> None:
    run = detect(folder / "none.wav")
    assert run.code == 1
    assert run.rows[0]["error"] == f"{folder / 'none.wav'} does not exist."


def test_csv_has_the_same_columns(detect: Any, folder: Path) -> None:
    run = detect(folder, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(run.out)))
    assert list(rows[0]) == [key for key in KEYS if key != "windows"]
    assert rows[0]["warnings"] == "" and rows[1]["score"] == "" and "not an audio" in rows[1]["error"]


def test_a_table_names_label_score_and_lowest_window(detect: Any, folder: Path) -> None:
    run = detect(folder, "--format", "table")
    lines = run.out.splitlines()
    assert lines[0].split() == ["verdict", "score", "lowest", "window", "length", "file"]
    assert lines[1][2:].startswith(("spoof", "bona fide"))
    assert " at 0:00.0" in lines[1] and lines[1].endswith("a.flac")
    [error] = [number for number, line in enumerate(lines) if line.startswith("! error")]
    assert "not an audio" in " ".join(lines[error + 1 :])
    assert max(map(len, lines)) <= 80 and lines[-1].startswith("2 judged, 1 failed (")
    assert "min of audio in" in lines[-1] and lines[-1].endswith("times real time.")


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize(
    "name", ["x.wav", f"{'long' * 40}/recording of a call with a very long name.wav", "電話の録音" * 20 + ".wav"]
)
def test_a_table_fits_the_terminal_whatever_the_names(columns: int, name: str) -> None:
    from rich.cells import cell_len
    from rich.console import Console

    from nes2net_hf.detection import Result
    from nes2net_hf.detection.writers import TableWriter

    out = io.StringIO()
    writer = TableWriter(Console(file=out, width=columns, force_terminal=False))
    for label, extra in (("bonafide", {}), ("spoof", {}), ("undecided", {"undecided": "its score is " + "low " * 40})):
        warnings = ["the recording is mostly silent " * 8]
        writer.write(
            Result(name, score=-123.456, min_window_score=-234.5, min_window_start=36_000.0, duration=36_004.0,
                   label=label, warnings=warnings, **extra)
        )  # fmt: skip
    writer.write(Result(name, error=f"{name} does not exist."))
    lines = out.getvalue().splitlines()
    assert max(map(cell_len, lines)) <= columns
    signs = [line[:11] for line in lines if line[:1] not in " "]
    assert signs == ["✓ bona fide", "✗ spoof    ", "? undecided", "! error    "]
    assert all(line.endswith(".wav") for line in lines if line[:1] in "✓✗?")


def test_a_list_names_recordings(detect: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = tmp_path / "list.txt"
    (tmp_path / "#1.flac").write_bytes((folder / "a.flac").read_bytes())  # not a comment
    text = f"\ufeff{folder / 'c.flac'}\r\n\r\n{folder / 'a.flac'}\r\n#1.flac\n"
    names.write_bytes(text.encode())
    monkeypatch.chdir(tmp_path)
    run = detect("--list", names)
    assert [Path(row["file"]).name for row in run.rows] == ["c.flac", "a.flac", "#1.flac"]
    names.write_text("\n \n")
    assert detect("--list", names).code == 2
    names.write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in detect("--list", names).err


def test_standard_input_is_judged(detect: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(folder / "a.flac", "rb") as file:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file))
        run = detect("-")
    assert run.code == 0
    assert run.rows[0]["file"] == "-"
    assert run.rows[0]["score"] == detect(folder / "a.flac").rows[0]["score"]


def test_demo_judges_the_two_bundled_samples(detect: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "a.flac").rename(folder / "bonafide.flac")
    (folder / "c.flac").rename(folder / "spoof.flac")
    monkeypatch.setattr(samples, "BONAFIDE", folder / "bonafide.flac")
    monkeypatch.setattr(samples, "SPOOF", folder / "spoof.flac")
    assert [Path(row["file"]).name for row in detect("--demo").rows] == ["bonafide.flac", "spoof.flac"]


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test_resume_skips_what_was_judged_and_tries_errors_again(detect: Any, folder: Path, name: str) -> None:
    output = folder.parent / name
    run = detect(folder, "--output", output)
    assert run.code == 1 and run.out == "" and "2 judged, 1 failed" in run.err
    before = output.read_bytes()
    newline = before[:-1].rindex(b"\n") + 1
    output.write_bytes(before[: newline + 40])  # as if killed while it wrote the last line

    (folder / "b.wav").write_bytes(encode(melody(1), 16_000, "wav"))
    run = detect(folder, "--output", output, "--resume")
    assert run.code == 0 and "2 judged, 0 failed" in run.err
    text = output.read_text(encoding="utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text))) if name == "out.csv" else list(map(json.loads, text.splitlines()))
    assert [Path(row["file"]).name for row in rows] == ["a.flac", "b.wav", "c.flac"]
    assert not any(row["error"] for row in rows)
    assert text.splitlines()[0] == before.decode("utf-8-sig").splitlines()[0]

    after = output.read_bytes()
    assert detect(folder, "--output", output, "--resume").code == 0
    assert output.read_bytes() == after


def test_resume_judges_a_file_again_whose_channels_may_be_missing(detect: Any, folder: Path) -> None:
    output = folder.parent / "out.jsonl"
    arguments = (folder / "a.flac", folder / "c.flac", "--channels", "each", "--output", output)
    detect(*arguments)
    whole = output.read_text()
    output.write_text("".join(whole.splitlines(keepends=True)[:2]))  # as if killed between two channels
    detect(*arguments, "--resume")
    assert output.read_text() == whole


def test_resume_refuses_what_another_run_wrote(detect: Any, folder: Path) -> None:
    output = folder.parent / "out.jsonl"
    detect(folder / "a.flac", "--output", output)
    before = output.read_bytes()
    run = detect(folder, "--output", output, "--resume", "--threshold", "1")
    assert run.code == 2 and "threshold: " in run.err and "or write to another file" in run.err
    assert output.read_bytes() == before
    output.write_text('{"my": "diary"}\n')
    run = detect(folder, "--output", output, "--resume")
    assert run.code == 2 and "line 1" in run.err
    assert output.read_text() == '{"my": "diary"}\n'


def test_names_of_any_alphabet_and_no_valid_one_are_written(detect: Any, folder: Path) -> None:
    (folder / "a.flac").rename(folder / "голос 🎙.flac")
    output = folder.parent / "out.jsonl"
    detect(folder / "голос 🎙.flac", "--output", output)
    assert "голос 🎙.flac" in output.read_text(encoding="utf-8")
    broken = os.fsdecode(b"caf\xe9.flac")
    run = detect(broken)
    assert run.rows[0]["file"] == broken


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "nothing to judge"),
        (["x.wav", "--resume"], "--output"),
        (["x.wav", "--output", "no/such/folder/out.jsonl"], "existing folder"),
        (["x.wav", "--output", "full.jsonl"], "--resume"),
        (["x.wav", "--output", "o.jsonl", "--format", "table"], "terminal"),
        (["--list", "none.txt"], "none.txt"),
        (["x.wav", "y.wav", "--plot", "p.png"], "exactly one"),
        (["-", "--plot", "p.png"], "exactly one"),
        (["x.wav", "--batch-size", "0"], "batch-size"),
        (["x.wav", "--dtype", "int4"], "int4"),
        (["x.wav", "--hop", "9"], "hop"),
        (["x.wav", "--device", "toaster"], "toaster"),
        (["x.wav", "--colour"], "--colour"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_a_sentence(
    detect: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full.jsonl").write_text("{}\n")
    run = detect(*arguments)
    assert run.code == 2 and run.out == ""
    assert words in run.err


def test_a_model_that_is_not_there_is_wrong_usage(nes2net: Any, folder: Path) -> None:
    for model in ("nobody/nothing", folder, folder / "none"):
        run = nes2net("detect", folder / "a.flac", "--model", model)
        assert run.code == 2 and run.out == ""
        assert str(model) in run.err and len(run.err.splitlines()) == 1


def test_version_and_help_are_there(nes2net: Any) -> None:
    for arguments in (["--version"], ["detect", "--version"]):
        run = nes2net(*arguments)
        assert run.code == 0 and run.out == f"nes2net_hf {__version__}\n"
    assert "detect" in nes2net("--help").out


def test_what_nobody_foresaw_is_a_sentence(detect: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*sources: Any) -> Any:
        raise KeyError("surprise")

    monkeypatch.setattr(detection, "list_recordings", fail)
    run = detect(folder)
    assert run.code == 1 and "KeyError: 'surprise'" in run.err and "report" in run.err


def test_interrupting_keeps_what_is_done(
    detect: Any, folder: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = Detector._score
    calls: list[int] = []

    def interrupted(self: Detector, inputs: Any) -> list[list[float]]:
        calls.append(len(inputs))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return score(self, inputs)

    monkeypatch.setattr(Detector, "_score", interrupted)
    output = folder.parent / "out.jsonl"
    run = detect(folder / "a.flac", folder / "c.flac", "--batch-size", "1", "--output", output)
    assert run.code == 130
    assert run.err.splitlines()[-1].startswith("Interrupted: 1 judged, 0 failed (1 ")
    assert [Path(json.loads(line)["file"]).name for line in output.read_text().splitlines()] == ["a.flac"]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals are sent differently there")
def test_a_real_interrupt_ends_at_once_without_a_traceback(folder: Path, tiny_model_dir: Path) -> None:
    soundfile.write(folder / "long.flac", np.tile(melody(60), 20), 16_000)
    arguments = [
        str(folder / "a.flac"),
        str(folder / "long.flac"),
        "--model",
        str(tiny_model_dir),
        "--batch-size",
        "1",
    ]
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)  # background jobs of a shell inherit an ignored signal
    try:
        process = subprocess.Popen(
            [*COMMAND, "detect", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert process.stdout is not None
    first = process.stdout.readline()  # flushed at once, while the second file is still being judged
    assert json.loads(first)["file"].endswith("a.flac")
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130 and time.monotonic() - started < 10
    assert errors.startswith("Interrupted: 1 judged, 0 failed (1 ") and errors.count("\n") == 1


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no pipes of a shell there")
def test_a_reader_that_leaves_is_no_error_and_the_demonstration_model_says_so(folder: Path) -> None:
    command = [*COMMAND, "detect", *[str(folder / "a.flac")] * 40, "--batch-size", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=60) == 1
    [notice] = process.stderr.read().splitlines()
    assert "demonstration model: do not rely on its verdicts" in notice


def test_plot_draws_score_and_waveform(detect: Any, folder: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = folder.parent / "p.png"
    assert detect(folder / "c.flac", "--channels", "each", "--plot", picture).code == 0
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 20_000
    broken = folder.parent / "q.png"
    assert detect(folder / "b.wav", "--plot", broken).code == 1
    assert not broken.exists()


def test_plot_without_matplotlib_says_how_to_get_it(
    detect: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    run = detect(folder / "a.flac", "--plot", folder / "p.png")
    assert run.code == 2 and "pip install 'nes2net_hf[plot]'" in run.err


def test_the_envelope_holds_the_extremes_of_every_stretch() -> None:
    signal = np.stack([voice(13), 0.5 * voice(13)])
    blocks = (signal[:, start : start + 7_001] for start in range(0, signal.shape[1], 7_001))
    low, high, step = envelope(blocks, bins=100)
    assert step == 0.13 and low.shape == high.shape == (2, 100)
    parts = signal.reshape(2, 100, -1)
    np.testing.assert_array_equal(low, parts.min(axis=2))
    np.testing.assert_array_equal(high, parts.max(axis=2))
