"""Planted leaks are found, and a clean corpus is not accused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr

pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install '.[audit]'")

from nes2net_hf.audit.corpus import audit_corpus
from nes2net_hf.audit.duplicates import find_duplicates, fingerprint
from nes2net_hf.augmentation import Codec
from nes2net_hf.errors import AuditError

COUNT, SPEAKERS = 96, 16
Change = Callable[[np.ndarray, bool, np.random.Generator], np.ndarray]


def make(folder: Path, speech: list[np.ndarray], change: Change | None = None, codec: bool = False) -> str:
    """Cuts of real speech. Only `change`, which is told the class, and the column codec tell the classes apart."""
    rng = np.random.default_rng(5)
    lines = ["path,utterance_id,label,speaker_id,codec,partition"]
    for number in range(COUNT):
        voice = speech[number % len(speech)]
        start = int(rng.integers(0, voice.size - 24_000))
        waveform = voice[start : start + int(rng.integers(12_000, 24_000))] * rng.uniform(0.3, 1.0)
        real = bool(rng.integers(2))
        if change is not None:
            waveform = change(waveform, real, rng)
        soundfile.write(folder / f"{number}.flac", np.clip(waveform, -1, 1), 16_000)
        its_codec = "mp3" if codec and real and number % 3 else "none"
        speaker = f"s{number % SPEAKERS}"
        part = "train" if number < COUNT // 2 else "test"
        lines.append(f"{number}.flac,u{number},{'bonafide' if real else 'spoof'},{speaker},{its_codec},{part}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return str(folder / "manifest.csv")


def leaking(root: str) -> set[str]:
    return {leak.cue for leak in audit_corpus("own-data", root).leaks if leak.leaks}


def silenced(waveform: np.ndarray, real: bool, rng: np.random.Generator) -> np.ndarray:
    lead = 1e-4 * rng.standard_normal(round(16_000 * (rng.uniform(0.3, 0.8) if real else rng.uniform(0.0, 0.2))))
    return np.concatenate([lead, waveform])


def quieter(waveform: np.ndarray, real: bool, rng: np.random.Generator) -> np.ndarray:
    return waveform * (1.0 if real else 0.2)


def narrower(waveform: np.ndarray, real: bool, rng: np.random.Generator) -> np.ndarray:
    return waveform if real else Codec(("mp3-11k",), bit_rates=(16_000,))(waveform.astype(np.float32), rng)


def test_a_clean_corpus_is_not_accused(speech: list[np.ndarray], tmp_path: Path) -> None:
    found = audit_corpus("own-data", make(tmp_path, speech))
    assert not [leak for leak in found.leaks if leak.leaks]
    assert found.duplicates.equal == [] and found.bonafide + found.spoof == COUNT
    cues = [leak.cue for leak in found.leaks]
    assert cues[-1].startswith("all of audio") or cues[-1] == "all cues of the audio"


@pytest.mark.parametrize(
    ("change", "cue"),
    [(silenced, "silence"), (quieter, "level"), (narrower, "bandwidth")],
    ids=["silence", "level", "mp3"],
)
def test_a_planted_cue_is_found(change: Change, cue: str, speech: list[np.ndarray], tmp_path: Path) -> None:
    found = leaking(make(tmp_path, speech, change))
    assert {cue, "all cues of the audio"} <= found and "codec" not in found


def test_a_column_that_tells_the_class_is_found(speech: list[np.ndarray], tmp_path: Path) -> None:
    root = make(tmp_path, speech, codec=True)
    found = leaking(root)
    assert "codec" in found and "all cues of the audio" not in found
    assert not {"file codec", "sampling rate"} & found
    for number, line in enumerate(Path(root).read_text().splitlines()[1:]):  # now only the files tell the classes
        waveform, rate = soundfile.read(tmp_path / f"{number}.flac")
        if "bonafide" in line and number % 3:
            resampled = soxr.resample(waveform, rate, 24_000)
            soundfile.write(tmp_path / f"{number}.flac", np.clip(resampled, -1, 1), 24_000, format="WAV")
    found = leaking(root)
    assert {"file codec", "sampling rate"} <= found and "channels" not in found


def test_one_speaker_of_a_class_is_no_error(speech: list[np.ndarray], tmp_path: Path) -> None:
    root = Path(make(tmp_path, speech))
    header, *rows = [line.split(",") for line in root.read_text().splitlines()]
    rows = [[*row[:3], "one" if row[2] == "bonafide" else row[3], *row[4:]] for row in rows]
    root.write_text("\n".join(",".join(row) for row in [header, *rows]) + "\n")
    found = audit_corpus("own-data", str(root))
    assert {leak.folds_by for leak in found.leaks} == {"utterance"}
    assert {leak.cue for leak in found.leaks if leak.leaks} == {"speaker"}


def test_duplicates_are_found_after_coding_trimming_and_a_change_of_level(
    speech: list[np.ndarray], tmp_path: Path, nes2net: Any
) -> None:
    root = make(tmp_path, speech[3:])
    text = Path(root).read_text()
    original = speech[0][8_000:40_000]
    coded = Codec(("mp3",), bit_rates=(32_000,))(original.astype(np.float32), np.random.default_rng(0))
    for name, waveform in (("a", original), ("b", original), ("c", 0.3 * coded[4_000:])):
        soundfile.write(tmp_path / f"{name}.flac", waveform, 16_000)
        partition = "train" if name == "a" else "test"
        text += f"{name}.flac,{name},{'spoof' if name == 'c' else 'bonafide'},t{name},none,{partition}\n"
    Path(root).write_text(text)
    run = nes2net("audit", "--corpus", "own-data", "--root", root, "--out", tmp_path / "audit")
    assert run.code == 0 and "pairs of duplicates are in different partitions" in run.out, run.err
    found = json.loads((tmp_path / "audit/audit.json").read_text())
    near = sorted(pair for pair in found["near"] if {"a", "b", "c"} & set(pair))  # other cuts may overlap
    assert found["equal"] == [["a", "b"]] and near == [["a", "c"], ["b", "c"]]
    assert found["across_partitions"] >= 2 and found["across_classes"] >= 2
    assert (tmp_path / "audit/audit.md").is_file() and (tmp_path / "audit/audit.png").is_file()


def test_different_sentences_of_a_voice_are_no_duplicates(speech: list[np.ndarray]) -> None:
    rows = [{"utterance_id": str(number), "label": 1, "partition": None} for number in range(len(speech))]
    found = find_duplicates([fingerprint(one) for one in speech], rows)
    assert found.equal == found.near == []
    short = find_duplicates([fingerprint(speech[0][:100]), fingerprint(speech[0][:101])], rows[:2])
    assert short.equal == short.near == []


def test_a_model_is_judged_without_speech_and_with_cues_equalised(
    speech: list[np.ndarray], tmp_path: Path, tiny_model_dir: Path, nes2net: Any
) -> None:
    root = make(tmp_path, speech)
    options = ["--corpus", "own-data", "--root", root, "--model", tiny_model_dir, "--limit", 24]
    run = nes2net("audit", *options, "--out", tmp_path / "audit")
    assert run.code == 0 and "non-speech only" in run.out, run.err
    assert max(len(line) for line in run.out.splitlines() if not line.startswith(str(tmp_path))) <= 80
    found = json.loads((tmp_path / "audit/audit.json").read_text())
    names = [(row["group"], row["condition"]) for row in found["conditions"]]
    assert len(names) == 8 and names[0] == ("clean", "unchanged")
    clean, *others = found["conditions"]
    assert clean["shift"] == 0 and clean["correlation"] == pytest.approx(1)
    assert all(row["shift"] > 0 for row in others if row["bonafide"] > 2) and found["weights"]
    again = nes2net("audit", *options, "--out", tmp_path / "audit")  # the scores are kept
    assert again.code == 0 and again.out == run.out


def test_what_cannot_be_audited_is_a_sentence(speech: list[np.ndarray], tmp_path: Path, nes2net: Any) -> None:
    root = make(tmp_path, speech)
    few = nes2net(
        "audit", "--corpus", "own-data", "--root", root, "--where", "utterance_id=u1", "--out", tmp_path / "o"
    )
    assert few.code == 2 and ("an audit needs 10" in few.err or "utterance_id" in few.err)
    (tmp_path / "3.flac").write_bytes(b"broken")
    found = audit_corpus("own-data", root)
    assert list(found.unreadable) == ["u3"] and found.bonafide + found.spoof == COUNT - 1
    with pytest.raises(AuditError, match="an audit needs 10"):
        audit_corpus("own-data", root, limit=12)
