"""Speakers' turns: RTTM in, a verdict for each speaker, and suspicious stretches out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from nes2net_hf import detect
from nes2net_hf.audio import read_audio
from nes2net_hf.detection.results import Result, Stretch
from nes2net_hf.detection.stretches import StretchWriter, joined
from nes2net_hf.detection.turns import Turn, alone, read_rttm, speaker_windows, turns_of
from nes2net_hf.errors import AudioError, ModelError, UsageError
from nes2net_hf.samples import SPOOF
from tests.helpers import FIXTURES

RATE, WINDOW = 16_000, 64_600
REAL = FIXTURES / "audio" / "test-pocketsphinx-cards-0001.flac"


def write_rttm(path: Path, turns: list[Turn], name: str = "call") -> Path:
    lines = [
        f"SPEAKER {name} 1 {turn.start:.3f} {turn.end - turn.start:.3f} <NA> <NA> {turn.speaker} <NA> <NA>"
        for turn in turns
    ]
    path.write_text("; a comment\n" + "\n".join(lines) + "\n")
    return path


@pytest.fixture
def call(tmp_path: Path) -> tuple[Path, Path]:
    """Ada's bona fide turns of two seconds, a spoof between them, and a second of both at the end."""
    real, fake = read_audio(REAL), np.tile(read_audio(SPOOF), 2)
    parts, turns, time = list[np.ndarray](), list[Turn](), 0.0
    for number in range(4):
        for speaker, voice, seconds in (("ada", real, 2.0), ("eve", fake, 2.0 if number < 3 else 6.0)):
            start = round(number * 2.0 * RATE) % max(1, len(voice) - round(seconds * RATE))
            parts.append(voice[start : start + round(seconds * RATE)])
            turns.append(Turn(time, time + len(parts[-1]) / RATE, speaker))
            time = turns[-1].end
    parts.append(0.5 * (real[:RATE] + fake[:RATE]))
    turns += [Turn(time, time + 1, "ada"), Turn(time, time + 1, "eve")]
    soundfile.write(tmp_path / "call.wav", np.concatenate(parts), RATE)
    return tmp_path / "call.wav", write_rttm(tmp_path / "call.rttm", turns)


def test_only_what_one_speaker_says_alone_is_used() -> None:
    turns = [Turn(0, 4, "a"), Turn(3, 6, "b"), Turn(5, 5.5, "a"), Turn(8, 9, "b"), Turn(8.5, 10, "b"), Turn(6, 6, "c")]
    found = [(turn.start, turn.end, turn.speaker) for turn in alone(turns)]
    assert found == [(0, 3, "a"), (4, 5, "b"), (5.5, 6, "b"), (8, 10, "b")]
    assert alone([]) == [] and alone([Turn(0, 1, "a"), Turn(1, 2, "a")]) == [Turn(0, 2, "a")]


@pytest.mark.parametrize("block", [7_000, 64_000, 10**9])
@pytest.mark.parametrize("hop", [WINDOW, WINDOW // 2])
def test_windows_hold_one_speaker_and_every_sample_of_theirs(block: int, hop: int) -> None:
    rng = np.random.default_rng(0)
    turns, time = [], 0.0
    for number in range(30):
        length = rng.choice([0.4, 1.7, 3.0, 5.0, 11.0])
        turns.append(Turn(time, time + length, f"s{number % 3}"))
        time += length + rng.choice([-0.3, 0.0, 0.5])
    wave = np.arange(round(time * RATE), dtype=np.float32)[None]  # each sample tells its place
    blocks = [wave[:, start : start + block] for start in range(0, wave.shape[1], block)]
    owner = np.full(wave.shape[1], -1)
    for turn in alone(turns):
        owner[round(turn.start * RATE) : round(turn.end * RATE)] = int(turn.speaker[1])
    seen = np.zeros(wave.shape[1], bool)
    sound: dict[str, float] = {}
    for window in speaker_windows(blocks, alone(turns), WINDOW, hop, sound):
        places = window.samples.astype(int)
        told = np.concatenate([np.arange(round(a * RATE), round(b * RATE)) for a, b in window.parts])
        assert (places == told).all() and len(places) <= WINDOW
        assert set(owner[places].tolist()) == {int(window.speaker[1])}
        if len(window.parts) == 1 and len(places) == WINDOW:
            assert places[-1] - places[0] == WINDOW - 1
        seen[places] = True
    assert (seen == (owner >= 0)).all()
    told = [(owner == number).sum() / RATE for number in range(3)]
    assert [sound[f"s{number}"] for number in range(3)] == pytest.approx(told, abs=0.5)


def test_each_speaker_gets_a_verdict(call: tuple[Path, Path], nes2net: Any, tmp_path: Path) -> None:
    audio, rttm = call
    run = nes2net("detect", audio, "--rttm", rttm, "--format", "jsonl")
    assert run.code == 0, run.err
    verdicts = {row["speaker"]: row for row in run.rows}
    assert {name: row["label"] for name, row in verdicts.items()} == {"ada": "bonafide", "eve": "spoof"}
    assert all(row["duration"] == pytest.approx(21.0, abs=0.01) for row in verdicts.values())
    assert any(window["parts"] for window in verdicts["ada"]["windows"])
    [mix] = nes2net("detect", audio, "--format", "jsonl").rows
    assert (mix["speaker"] is None and mix["label"] != verdicts["ada"]["label"]) or mix["label"] != "spoof"
    table = nes2net("detect", audio, "--rttm", rttm, "--format", "table").out
    assert "(speaker ada)" in table and "(speaker eve)" in table
    [one, two] = detect(audio, rttm=rttm, device="cpu")
    assert (one.speaker, two.speaker) == ("ada", "eve") and one.score == pytest.approx(
        verdicts["ada"]["score"], abs=1e-5
    )
    # A run that ended between the speakers of a file judges it again.
    output = tmp_path / "out.csv"
    assert nes2net("detect", audio, "--rttm", rttm, "--output", output).code == 0
    whole = output.read_bytes()
    output.write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    assert nes2net("detect", audio, "--rttm", rttm, "--output", output, "--resume").code == 0
    assert output.read_bytes() == whole
    other = nes2net("detect", audio, "--output", output, "--resume")
    assert other.code == 2 and "rttm: " in other.err and output.read_bytes() == whole


def test_a_speaker_who_says_little_is_not_judged(call: tuple[Path, Path], tmp_path: Path) -> None:
    audio, _ = call
    turns = [Turn(0.0, 0.5, "bob"), Turn(2.0, 4.0, "eve"), Turn(100.0, 101.0, "late")]
    [bob, eve, late] = detect(audio, rttm=write_rttm(tmp_path / "a.rttm", turns), device="cpu")
    assert bob.undecided == "too short to judge" and bob.label is None and eve.label == "spoof"
    assert late.error == f"{audio} is silent where only late speaks: no window peaks above -60 dBFS."


def test_recordings_find_their_turns_by_name(tmp_path: Path) -> None:
    known = {"call": [Turn(0, 1, "a")], "b.c": [Turn(0, 2, "b")]}
    assert turns_of("/x/call.wav", known)[0].speaker == "a" and turns_of("b.c", known) == turns_of("d/b.c.mp3", known)
    assert turns_of("my  call.wav", {"my_call": known["call"], "x": []}) == known["call"]
    with pytest.raises(AudioError, match=r"other\.wav has no turns in the RTTM file, which has those of b\.c, call\."):
        turns_of("other.wav", known)
    assert turns_of("-", {"call": known["call"]}) == known["call"]
    with pytest.raises(AudioError):
        turns_of("-", known)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no line that begins with SPEAKER"), ("SPEAKER a 1 0.0", "line 1, is not RTTM"),
        ("; x\nSPEAKER a 1 zero 1.0 <NA> <NA> b <NA> <NA>", "line 2, is not RTTM"),
        ("SPEAKER a 1 -1 1.0 <NA> <NA> b <NA> <NA>", "line 1, is not RTTM"),
        ("SPEAKER my call 1 0.50 5.00 <NA> <NA> a <NA> <NA>", "line 1, is not RTTM"),
        ("SPEAKER a 1 0 nan <NA> <NA> b <NA> <NA>", "line 1, is not RTTM"),
    ],
)  # fmt: skip
def test_what_is_no_rttm_is_a_sentence(text: str, words: str, tmp_path: Path, nes2net: Any) -> None:
    (tmp_path / "bad.rttm").write_text(text)
    run = nes2net("detect", SPOOF, "--rttm", tmp_path / "bad.rttm")
    assert run.code == 2 and words in run.err and "bad.rttm" in run.err
    with pytest.raises(UsageError):
        read_rttm(tmp_path / "bad.rttm")
    gone = nes2net("detect", SPOOF, "--rttm", tmp_path / "gone.rttm")
    assert gone.code == 2 and "gone.rttm cannot be read" in gone.err


def test_turns_and_channels_contradict_each_other(call: tuple[Path, Path]) -> None:
    with pytest.raises(ModelError, match="omit channels"):
        detect(call[0], rttm=call[1], channels="each")


# Stretches ----------------------------------------------------------------------------------------------------------


def test_stretches_for_other_programs(call: tuple[Path, Path], nes2net: Any, tmp_path: Path) -> None:
    audio, rttm = call
    out = tmp_path / "out.rttm"
    run = nes2net("detect", audio, "--rttm", rttm, "--stretches", out, "--format", "jsonl")
    assert run.code == 0
    [found] = read_rttm(out).values()
    assert {turn.speaker for turn in found} <= {"eve-spoof", "ada-spoof"} and any(
        turn.speaker == "eve-spoof" for turn in found
    )
    truth = np.zeros(22 * RATE, bool)
    for turn in alone(read_rttm(rttm)["call"]):
        truth[round(turn.start * RATE) : round(turn.end * RATE)] = turn.speaker == "eve"
    for turn in found:
        if turn.speaker == "eve-spoof":
            assert truth[round(turn.start * RATE) + 2 : round(turn.end * RATE) - 2].all()
    labels = tmp_path / "labels.txt"
    assert nes2net("detect", SPOOF, "--stretches", labels).code == 0
    start, end, label = labels.read_text().splitlines()[0].split("\t")
    assert 0 <= float(start) < float(end) <= 4.9 and label.startswith("spoof -")


def test_stretches_that_touch_are_one(tmp_path: Path) -> None:
    found = joined([Stretch(4, 6, -1), Stretch(0, 2, -2), Stretch(2, 3, -3), Stretch(5, 5.5, -4)])
    assert found == [Stretch(0, 3, -3), Stretch(4, 6, -4)]
    with StretchWriter(tmp_path / "x.rttm") as writer:
        writer.write(Result("my call.wav", channel=1, spoofed=[Stretch(0.5, 1.25, -2)]))
    line = (tmp_path / "x.rttm").read_text()
    assert line == "SPEAKER my_call 2 0.500 0.750 <NA> <NA> spoof <NA> <NA>\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--stretches", "x.json"], ".rttm or .txt"), (["--stretches", "x.txt", REAL], "end the name in .rttm"),
        (["--stretches", "x.rttm", "--output", "o.jsonl", "--resume"], "omit --resume"),
        (["--rttm", "x.rttm", "--plot", "x.png"], "omit --rttm"),
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_a_sentence(arguments: list[Any], words: str, nes2net: Any, tmp_path: Path) -> None:
    placed = [tmp_path / one if isinstance(one, str) and one[0] in "xo" else one for one in arguments]
    run = nes2net("detect", SPOOF, *placed)
    assert run.code == 2 and words in run.err, run.err


def test_the_results_are_one_object_per_line(call: tuple[Path, Path], nes2net: Any, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    assert nes2net("detect", call[0], "--rttm", call[1], "--output", out).code == 0
    assert [json.loads(line)["speaker"] for line in out.read_text().splitlines()] == ["ada", "eve"]
