"""Fixtures shared by the suite: tiny random models of every encoder type, and real speech."""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path
from typing import Any

if worker := os.environ.get("PYTEST_XDIST_WORKER"):  # gw0, gw1, …
    # One core and one thread for each worker, before torch starts its threads: they would wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if hasattr(os, "sched_setaffinity"):  # the trainer uses all cores that it may
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker[2:]) % len(cores)]})

import numpy as np
import pytest
import soundfile
from xdist.scheduler import WorkStealingScheduling

from nes2net_hf import Nes2NetFeatureExtractor
from tests.helpers import FIXTURES, Run, tiny_model


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> WorkStealingScheduling:
    """Neighbours stay together, because they share fixtures."""
    return WorkStealingScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(1200))


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `from_pretrained` and `--model` take it: tiny random model and its feature extractor."""
    folder = tmp_path_factory.mktemp("tiny-nes2net")
    tiny_model().save_pretrained(folder)
    Nes2NetFeatureExtractor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def fixture_audio_dir() -> Path:
    """About two minutes of licensed real speech, bona fide and spoofed, described by its manifest.csv."""
    return FIXTURES / "audio"


@pytest.fixture(scope="session")
def speech(fixture_audio_dir: Path) -> list[np.ndarray]:
    """The fixture recordings: float32, mono, 16 kHz, of unequal lengths."""
    with open(fixture_audio_dir / "manifest.csv", newline="", encoding="utf-8") as file:
        paths = [fixture_audio_dir / row["path"] for row in csv.DictReader(file)]
    return [soundfile.read(path, dtype="float32")[0] for path in paths]


@pytest.fixture
def nes2net(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """The command line in this process: `nes2net("detect", path)` → what it left behind."""
    import nes2net_cli

    def run(*arguments: Any) -> Run:
        monkeypatch.setattr(sys, "argv", ["nes2net", *map(str, arguments)])
        with pytest.raises(SystemExit) as ending:
            nes2net_cli.main()
        return Run(ending.value.code or 0, *capsys.readouterr())  # type: ignore[arg-type]

    return run


@pytest.fixture(scope="session")
def corpus(speech: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half-second cuts of real speech as bona fide, the same turned back in time as spoof: easy to tell apart."""
    root = tmp_path_factory.mktemp("corpus")
    lines = ["utterance_id,path,label,speaker_id,gender,language,attack,codec,source,partition"]
    for partition, count in (("train", 12), ("dev", 6)):
        for number in range(count):
            waveform = speech[number % 3][8000 * (number // 3 % 3) :][:8000]
            for label in ("bonafide", "spoof"):
                name = f"{partition}-{label}-{number}"
                path = root / "audio" / f"{name}.flac"
                path.parent.mkdir(exist_ok=True)
                soundfile.write(path, waveform if label == "bonafide" else 0.05 * waveform[::-1], 16_000)
                attack = "" if label == "bonafide" else "reversal"
                lines.append(f"{name},audio/{name}.flac,{label},s{number % 3},,,{attack},,test,{partition}")
    (root / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root
