"""Tests `nes2net robustness`: conditions do what their names say, and a stopped run ends with the same results."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("datasets")

from nes2net_hf import Nes2NetFeatureExtractor
from nes2net_hf.audio import read_audio
from nes2net_hf.augmentation import codec
from nes2net_hf.augmentation.silence import find_speech
from nes2net_hf.corpora import load_corpus
from nes2net_hf.errors import OutputError
from nes2net_hf.metrics import bootstrap_eer
from nes2net_hf.pretrained.load import load_model
from nes2net_hf.robustness import Measured, RobustnessError, RobustnessRun
from nes2net_hf.robustness.conditions import CLEAN, GROUPS, Condition, make_conditions, number_of
from tests.helpers import band_power, frame_model, tiny_model

RATE = 16_000
FEW = ("clean as it is", "telephony A-law", "white noise 0 dB", "cropping 0.5 s", "level -40 dB")


@pytest.fixture(scope="module")
def conditions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Condition]:
    """Returns all conditions by group and name."""
    made = make_conditions(tmp_path_factory.mktemp("sounds"))
    assert made[0].group == CLEAN and list(dict.fromkeys(condition.group for condition in made)) == list(GROUPS)
    by_name = {f"{condition.group} {condition.name}": condition for condition in made}
    assert len(by_name) == len(made)
    return by_name


@pytest.fixture(scope="module")
def wave(speech: list[np.ndarray]) -> np.ndarray:
    return max(speech, key=len)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch, conditions: dict[str, Condition]) -> None:
    """Limits runs to five conditions."""
    monkeypatch.setattr(
        "nes2net_hf.robustness.run.make_conditions", lambda sounds: tuple(conditions[name] for name in FEW)
    )


def test_a_condition_gives_an_utterance_the_same_audio_in_any_run(
    conditions: dict[str, Condition], wave: np.ndarray, tmp_path: Path
) -> None:
    again = {f"{condition.group} {condition.name}": condition for condition in make_conditions(tmp_path)}
    heard = {}
    for name, condition in conditions.items():
        heard[name] = condition(wave, "a")
        assert heard[name].dtype == np.float32 and np.isfinite(heard[name]).all()
        assert np.array_equal(heard[name], again[name](wave, "a")), name
        assert np.array_equal(heard[name], wave) == (name == "clean as it is"), name
    for name in ("white noise 0 dB", "reverberation 0.6 s", "cropping 1 s"):
        assert not np.array_equal(heard[name], conditions[name](wave, "b")), name
    assert number_of("cropping", "1 s", "a") == 18188751688930972214  # in every process and version of Python


@pytest.mark.parametrize("snr", [20, 10, 5, 0])
@pytest.mark.parametrize(("kind", "slope"), [("white", 0.0), ("pink", -3.01)])
def test_noise_has_its_snr_and_its_colour(
    kind: str, slope: float, snr: int, conditions: dict[str, Condition], wave: np.ndarray
) -> None:
    noise = conditions[f"{kind} noise {snr} dB"](wave, "a").astype(np.float64) - wave
    assert 10 * np.log10(np.mean(wave.astype(np.float64) ** 2) / np.mean(noise**2)) == pytest.approx(snr, abs=0.02)
    octaves = [10 * np.log10(band_power(noise, low, 2 * low) / low) for low in (250, 500, 1_000, 2_000, 4_000)]
    assert np.polyfit(range(5), octaves, 1)[0] == pytest.approx(slope, abs=0.3)


@pytest.mark.parametrize("rt60", [0.3, 0.6, 1.0])
def test_rooms_decay_in_their_time(rt60: float, conditions: dict[str, Condition]) -> None:
    click = np.zeros(2 * RATE, np.float32)
    click[0] = 1.0
    for utterance in ("a", "b", "c"):
        response = conditions[f"reverberation {rt60} s"](click, utterance).astype(np.float64)
        assert np.abs(response).argmax() == 0
        left = np.cumsum(response[:0:-1] ** 2)[::-1]  # Schroeder integral after the direct sound
        assert left[0] == pytest.approx(response[0] ** 2, rel=1e-3)
        level = 10 * np.log10(left / left[0] + 1e-12)
        early = (level < -5) & (level > -25)
        assert -60 / np.polyfit(np.flatnonzero(early) / RATE, level[early], 1)[0] == pytest.approx(rt60, rel=0.1)


def test_telephones_leave_nothing_above_4_khz(conditions: dict[str, Condition], speech: list[np.ndarray]) -> None:
    wide = max(speech, key=lambda wave: band_power(wave, 4200, 7000) / band_power(wave, 0, 4000))
    names = [name for name in conditions if name.startswith("telephony")]
    assert len(names) == 5
    for name in names:
        narrow = conditions[name](wide, "a")
        assert abs(narrow.size - wide.size) <= 2
        assert band_power(narrow, 4200, 8000) < 1e-3 * band_power(narrow, 0, 4000), name
    assert np.linalg.norm(conditions["telephony 8 kHz"](wide, "a")[: wide.size] - wide) < 0.5 * np.linalg.norm(wide)


@pytest.mark.parametrize("name", ["MP3", "AAC", "Opus"])
def test_fewer_bits_change_more(name: str, conditions: dict[str, Condition], wave: np.ndarray) -> None:
    spectrum = np.abs(np.fft.rfft(wave))  # independent of the codec's delay
    rates = [condition for key, condition in conditions.items() if key.startswith(name)]
    errors = [np.linalg.norm(np.abs(np.fft.rfft(condition(wave, "a"))) - spectrum) for condition in rates]
    assert len(errors) == 3 and errors == sorted(errors)


def test_lengths_levels_and_clipping_are_as_named(conditions: dict[str, Condition], wave: np.ndarray) -> None:
    def rms(samples: np.ndarray) -> float:
        return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))

    for seconds in (4, 2, 1, 0.5):
        cut = conditions[f"cropping {seconds} s"](wave, "a")
        assert cut.size == seconds * RATE < wave.size
        windows = np.lib.stride_tricks.sliding_window_view(wave, 64)
        assert (windows == cut[:64]).all(axis=1).any()
    assert np.array_equal(conditions["cropping 4 s"](wave[:RATE], "a"), wave[:RATE])
    for speed in (0.8, 0.9, 1.1, 1.25):
        assert conditions[f"speed {speed}x"](wave, "a").size == pytest.approx(wave.size / speed, abs=2)
    for level in (-20, -40):
        assert 20 * np.log10(rms(conditions[f"level {level} dB"](wave, "a")) / rms(wave)) == pytest.approx(level)
    for share in (1, 10):
        clipped = conditions[f"level {share} % clipped"](np.pad(wave, RATE), "a")
        assert np.abs(clipped).max() == 1
        assert np.mean(np.abs(clipped[clipped != 0]) == 1) == pytest.approx(share / 100, rel=0.02)


def test_silence_is_removed_or_longer_and_speech_is_as_it_was(
    conditions: dict[str, Condition], speech: list[np.ndarray]
) -> None:
    for wave in speech:
        start, end = find_speech(wave)
        assert np.array_equal(conditions["silence trimmed"](wave, "a"), wave[start:end])
        longer = conditions["silence +1 s"](wave, "a")
        assert longer.size == wave.size + 2 * RATE
        assert np.array_equal(longer[RATE : RATE + wave.size], wave)


def options(corpus: Path, **others: Any) -> dict[str, Any]:
    return {"corpus": "own-data", "root": str(corpus / "manifest.csv"), "where": {"partition": ["dev"]}, **others}


def measured(run: RobustnessRun) -> list[Measured]:
    """Returns all rows, without the times."""
    return [replace(run.measure(condition), seconds=0.0) for condition in run.conditions]


def by_hand(model: Path, corpus: Path, condition: Condition) -> dict[str, tuple[int, str, float]]:
    """Returns utterance → label, speaker and score under a condition, one at a time, without silent ones."""
    network, extractor = load_model(str(model), None, torch.device("cpu"), "float32")
    found = {}
    for row in load_corpus("own-data", root=corpus / "manifest.csv", where={"partition": "dev"}):
        changed = condition(read_audio(row["audio"]["path"]), row["utterance_id"])
        if np.abs(changed).max() > 1e-3:
            with torch.inference_mode():
                logits = network(**extractor(changed, sampling_rate=RATE, return_tensors="pt")).logits
            found[row["utterance_id"]] = row["label"], row["speaker_id"], float(network.score(logits).min())
    return found


@pytest.mark.parametrize("kind", ["first", "whole", "frames"])
def test_the_rate_is_that_of_the_benchmarks_scores(
    kind: str, corpus: Path, tiny_model_dir: Path, tmp_path: Path, few: None
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model_dir, model)
    if kind != "first":
        Nes2NetFeatureExtractor(length_policy="whole").save_pretrained(model)
    if kind == "frames":
        frame_model().save_pretrained(model)
    run = RobustnessRun(str(model), tmp_path / "out", **options(corpus))
    kept = ["clean-as-it-is", "telephony-a-law", "white-noise-0-db", "cropping-0.5-s", "level-40-db"]
    for condition, row, name in zip(run.conditions, measured(run), kept):
        found = by_hand(model, corpus, condition)
        lines = [json.loads(line) for line in (run.out / f"scores/{name}.jsonl").read_text().splitlines()]
        scores = {utterance: score for line in lines for utterance, score in line["scores"].items()}
        assert scores == pytest.approx({utterance: score for utterance, (*_, score) in found.items()}, abs=1e-5)
        trials = found.values()
        spoof, bonafide = ([trial for trial in trials if trial[0] == label] for label in (0, 1))
        assert (row.spoof, row.bonafide, len(row.left_out)) == (len(spoof), len(bonafide), 12 - len(trials))
        if spoof and bonafide:
            expected = bootstrap_eer(
                [score for _, _, score in bonafide],
                [score for _, _, score in spoof],
                bonafide_speakers=[speaker for _, speaker, _ in bonafide],
                spoof_speakers=[speaker for _, speaker, _ in spoof],
            )
            assert row.eer == expected and expected.unit == "speaker"
    quiet = by_name(run, "level -40 dB")
    assert quiet.eer is None and quiet.spoof == 0  # the spoofs of this corpus are already quiet
    assert all(reason == "silent: nothing rises above -60 dBFS." for reason in quiet.left_out.values())


def by_name(run: RobustnessRun, name: str) -> Measured:
    return run.measure(next(c for c in run.conditions if f"{c.group} {c.name}" == name))


def test_a_stopped_run_continues_to_the_same_figures(
    corpus: Path, tiny_model_dir: Path, tmp_path: Path, few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = measured(RobustnessRun(str(tiny_model_dir), tmp_path / "whole", **options(corpus)))
    judge, calls = RobustnessRun._judge, []

    def counted(self: RobustnessRun, condition: Condition, rows: Any) -> Any:
        calls.append(f"{condition.group} {condition.name}")
        if len(calls) == 4:
            raise KeyboardInterrupt
        return judge(self, condition, rows)

    monkeypatch.setattr(RobustnessRun, "_judge", counted)
    with pytest.raises(KeyboardInterrupt):
        measured(RobustnessRun(str(tiny_model_dir), tmp_path / "out", **options(corpus)))
    assert calls == [FEW[0], FEW[0], FEW[1], FEW[1]]  # twelve utterances make two batches
    with open(tmp_path / "out/scores/telephony-a-law.jsonl", "a") as file:
        file.write('{"seconds": 0.1, "scor')  # killed while writing a line
    again = measured(RobustnessRun(str(tiny_model_dir), tmp_path / "out", **options(corpus)))
    assert again == whole
    assert calls[4:] == [FEW[1], *(name for name in FEW[2:] for _ in range(2))]
    for path in (tmp_path / "whole/scores").iterdir():
        lines = [json.loads(line) | {"seconds": 0} for line in path.read_text().splitlines()]
        resumed = (tmp_path / "out/scores" / path.name).read_text().splitlines()
        assert [json.loads(line) | {"seconds": 0} for line in resumed] == lines
    del calls[:]
    assert measured(RobustnessRun(str(tiny_model_dir), tmp_path / "out", **options(corpus))) == whole and not calls


def test_a_folder_of_something_else_is_refused(corpus: Path, tiny_model_dir: Path, tmp_path: Path, few: None) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model_dir, model)
    RobustnessRun(str(model), tmp_path / "out", **options(corpus))
    RobustnessRun(str(model), tmp_path / "out", **options(corpus))
    with pytest.raises(OutputError, match=r"^where: .*/out began with .*dev"):
        RobustnessRun(str(model), tmp_path / "out", **options(corpus, where={"partition": ["train"]}))
    with pytest.raises(OutputError, match=r"^limit: .* began with none, not 4: .* or name another output"):
        RobustnessRun(str(model), tmp_path / "out", **options(corpus, limit=4))
    tiny_model(seed=1).save_pretrained(model)  # trained further, under the same name
    with pytest.raises(OutputError, match=r"out began with other weights: remove it, or name another output"):
        RobustnessRun(str(model), tmp_path / "out", **options(corpus))


def test_a_limit_is_shared_by_classes_and_speakers(
    corpus: Path, tiny_model_dir: Path, tmp_path: Path, few: None
) -> None:
    def chosen(limit: int) -> set[str]:
        run = RobustnessRun(str(tiny_model_dir), tmp_path / str(limit), **options(corpus, limit=limit, where=None))
        assert run.trials.speakers is not None and len(run.trials) == limit
        for label in (0, 1):
            rows = [row for row, its in run.trials.labels.items() if its == label]
            assert len(rows) == limit // 2
            counts = [[run.trials.speakers[row] for row in rows].count(f"s{number}") for number in range(3)]
            assert max(counts) - min(counts) <= 1
        return set(run.trials.utterances.values())

    assert chosen(6) < chosen(16) < chosen(30)


def copy_with_broken_file(corpus: Path, folder: Path) -> Path:
    shutil.copytree(corpus, folder)
    broken = folder / "audio/dev-spoof-2.flac"
    broken.write_bytes(broken.read_bytes()[:300])
    return folder


def test_the_command_writes_table_figures_and_plot_and_counts_what_it_cannot_read(
    nes2net: Any, corpus: Path, tiny_model_dir: Path, tmp_path: Path, few: None
) -> None:
    pytest.importorskip("matplotlib")
    mine = copy_with_broken_file(corpus, tmp_path / "mine")
    arguments = ("--corpus", "own-data", "--root", mine / "manifest.csv", "--where", "partition=dev")
    out = tmp_path / "out"
    done = nes2net("robustness", tiny_model_dir, *arguments, "--out", out)
    assert done.code == 1
    for words in ("A-law", "EER %", "95 % interval", "6 bona fide and 6 spoofed utterances, intervals by speaker"):
        assert words in done.out
    assert "Left out: unreadable, under all conditions: 1 (dev-spoof-2: " in done.out
    figures = json.loads((out / "robustness.json").read_text(encoding="utf-8"))
    assert list(figures["unreadable"]) == ["dev-spoof-2"] and figures["seed"] == 0
    assert figures["where"] == {"partition": ["dev"]} and figures["environment"]["torch"] == torch.__version__
    assert [f"{row['group']} {row['condition']}" for row in figures["conditions"]] == list(FEW)
    clean, quiet = figures["conditions"][0], figures["conditions"][-1]
    assert (clean["bonafide"], clean["spoof"], clean["unit"]) == (6, 5, "speaker")
    assert 0 <= clean["low"] <= clean["eer"] <= clean["high"] <= 1
    assert quiet["eer"] is None and quiet["spoof"] == 0 and len(quiet["left_out"]) >= 5
    text = (out / "robustness.md").read_text(encoding="utf-8")
    assert f"nes2net robustness {tiny_model_dir} --corpus own-data" in text
    assert f"| clean | as it is | {100 * clean['eer']:.1f} | " in text and "| level | -40 dB | none | none |" in text
    assert "![EER by condition](robustness.png)" in text and all(f"- **{group}**: " in text for group in GROUPS)
    assert (out / "robustness.png").read_bytes().startswith(b"\x89PNG")

    shutil.copy(corpus / "audio/dev-spoof-2.flac", mine / "audio")  # fixed: the same command now includes it
    again = nes2net("robustness", tiny_model_dir, *arguments, "--out", out)
    assert again.code == 0
    clean = json.loads((out / "robustness.json").read_text(encoding="utf-8"))["conditions"][0]
    assert (clean["bonafide"], clean["spoof"]) == (6, 6)


def test_without_matplotlib_the_figures_are_written_and_a_sentence_says_how_to_get_the_plot(
    nes2net: Any, corpus: Path, tiny_model_dir: Path, tmp_path: Path, few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.chdir(tmp_path)
    place = ("--corpus", "own-data", "--root", corpus / "manifest.csv")
    done = nes2net("robustness", tiny_model_dir, *place, "--limit", "4")
    [out] = tmp_path.iterdir()
    assert out.name == f"robustness-{tiny_model_dir.parent.name}-{tiny_model_dir.name}-own-data"
    assert done.code == 0 and "pip install 'nes2net_hf[plot]'" in done.err
    assert "EER %" in done.out and (out / "robustness.json").exists() and not (out / "robustness.png").exists()
    assert "robustness.png" not in done.out + (out / "robustness.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["./none", "--corpus", "own-data", "--root", "{corpus}"], "model folder ./none does not exist"),
        (["{model}", "--corpus", "asvspof5", "--root", "."], "did you mean asvspoof5"),
        (["{model}", "--corpus", "own-data", "--root", "none.csv"], "none.csv does not exist"),
        (["{model}", "--corpus", "own-data", "--root", "{corpus}", "--where", "dev"], "'dev' must have the form"),
        (["{model}", "--corpus", "own-data", "--root", "{corpus}", "--where", "part=dev"], "no column 'part'"),
        (
            ["{model}", "--corpus", "own-data", "--root", "{corpus}", "--where", "label=spoof"],
            "has no bonafide utterances of own-data to score",
        ),
        (["{model}", "--corpus", "own-data", "--root", "{corpus}", "--limit", "1"], "limit"),
        (["{model}", "--corpus", "own-data"], "root"),
    ],
)
def test_wrong_usage_is_a_sentence(
    arguments: list[str], words: str, nes2net: Any, corpus: Path, tiny_model_dir: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    filled = [text.format(model=tiny_model_dir, corpus=corpus / "manifest.csv") for text in arguments]
    wrong = nes2net("robustness", *filled)
    assert wrong.code == 2 and wrong.out == "" and words in wrong.err
    assert not list(tmp_path.iterdir())


def test_a_codec_that_is_not_there_is_named(
    corpus: Path, tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = codec.av.codecs_available - {"libopencore_amrnb"}
    monkeypatch.setattr(codec.av, "codecs_available", there)
    with pytest.raises(RobustnessError, match=r"amr-nb needs the encoder libopencore_amrnb.* pip install"):
        RobustnessRun(str(tiny_model_dir), tmp_path / "out", **options(corpus))


def test_scores_that_are_no_numbers_are_named(corpus: Path, tmp_path: Path, tiny_model_dir: Path, few: None) -> None:
    model = tiny_model()
    torch.nn.init.constant_(model.classifier.bias, float("nan"))
    shutil.copytree(tiny_model_dir, tmp_path / "model")
    model.save_pretrained(tmp_path / "model")
    run = RobustnessRun(str(tmp_path / "model"), tmp_path / "out", **options(corpus))
    with pytest.raises(RobustnessError, match=r"dev-\w+-0 a score that is not a finite number under clean, as it is"):
        run.measure(run.conditions[0])


@pytest.mark.slow
def test_a_killed_run_continues(corpus: Path, tiny_model_dir: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nes2net_cli", "robustness", str(tiny_model_dir), "--corpus", "own-data"]
    command += ["--root", str(corpus / "manifest.csv"), "--limit", "8", "--out"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen([*command, str(tmp_path / "killed")], env=environment, stdout=subprocess.DEVNULL)
    while not (tmp_path / "killed/scores/opus-6-kbit-s.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = {path.name: path.read_bytes() for path in (tmp_path / "killed/scores").glob("mp3*")}
    assert len(finished) == 3 and not (tmp_path / "killed/robustness.json").exists()
    results = []
    for name in ("killed", "whole"):
        done = subprocess.run([*command, str(tmp_path / name)], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        rows = json.loads((tmp_path / name / "robustness.json").read_text())["conditions"]
        results.append([{key: value for key, value in row.items() if key != "seconds_per_utterance"} for row in rows])
    assert results[0] == results[1] and len(results[0]) == 40
    assert finished == {path.name: path.read_bytes() for path in (tmp_path / "killed/scores").glob("mp3*")}
