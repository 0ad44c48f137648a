"""
Every command that writes: two runs with the same output, a full disk, a read-only disk, and the same exit code for the
same kind of error. `NES2NET_TABLE=1 pytest -s tests/cli/test_outputs.py | grep '^|'` prints a table of the messages.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("accelerate")
pytest.importorskip("onnxruntime")

from nes2net_hf.conversion import convert
from nes2net_hf.samples import SPOOF as SPEECH
from tests.helpers import FIXTURES, Run, held, tiny_recipe, write

WRONG = ((0, "bonafide", "spoof"), (1, "spoof", "bonafide"))
CHECKPOINT = FIXTURES / "checkpoints" / "e2e_xlsr_nes2netx_mean.pth"
SCRIPTS = Path(__file__).parents[2] / "training"


@dataclass
class Given:
    """The inputs of the commands."""

    model: Path
    corpus: Path
    folder: Path


@pytest.fixture(scope="module")
def given(tiny_model_dir: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Given:
    folder = tmp_path_factory.mktemp("given")
    random = np.random.default_rng(0)
    names = [f"u{number}" for number in range(40)]
    for system in ("a", "b"):
        scores = random.normal(size=40) + np.arange(40) % 2
        text = "".join(f"{name} {score:.6f}\n" for name, score in zip(names, scores))
        (folder / f"{system}.txt").write_text(text, encoding="utf-8")
    labels = [f"{name} {('spoof', 'bonafide')[row % 2]}\n" for row, name in enumerate(names)]
    (folder / "keys.txt").write_text("".join(labels), encoding="utf-8")
    weights = '{"systems": ["a.txt", "b.txt"], "weights": [1, 1], "offset": 0}'
    (folder / "weights.json").write_text(weights, encoding="utf-8")
    rows = (corpus / "manifest.csv").read_text(encoding="utf-8").replace("audio/", f"{corpus}/audio/").splitlines()
    for row in range(1, len(rows), 4):  # wrong labels: perfectly separated classes cannot be calibrated
        rows[row], rows[row + 1] = (rows[row + i].replace(f",{a},", f",{b},") for i, a, b in WRONG)
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    write(folder / "augment.yaml", tiny_recipe(corpus, folder / "none"))
    encoder = json.loads(CHECKPOINT.with_suffix(".json").read_text(encoding="utf-8"))["hf_config"]
    (folder / "encoder.json").write_text(json.dumps(encoder), encoding="utf-8")
    convert(CHECKPOINT, folder / "model", encoder_config=folder / "encoder.json")
    return Given(tiny_model_dir, corpus, folder)


def own(given: Given) -> list[Any]:
    return ["--corpus", "own-data", "--root", given.folder / "manifest.csv", "--where", "partition=dev"]


def shape(given: Given) -> list[Any]:
    return ["--encoder-config", given.folder / "encoder.json"]


# For each command: the output, how it is claimed, and the arguments.
COMMANDS: dict[str, tuple[str, str, Any]] = {
    "detect --output": ("v.jsonl", "file", lambda g, o: ["detect", SPEECH, "--model", g.model, "--output", o]),
    "detect --output (csv)": ("v.csv", "file", lambda g, o: ["detect", SPEECH, "--model", g.model, "--output", o]),
    "detect --resume": (
        "v.jsonl", "file", lambda g, o: ["detect", SPEECH, "--model", g.model, "--resume", "--output", o],
    ),
    "detect --plot": ("p.png", "file", lambda g, o: ["detect", SPEECH, "--model", g.model, "--plot", o]),
    "convert": ("model", "folder", lambda g, o: ["convert", CHECKPOINT, o, *shape(g)]),
    "convert --to-official": ("b.pth", "file", lambda g, o: ["convert", "--to-official", g.folder / "model", o]),
    "export": ("graph", "folder", lambda g, o: ["export", g.model, o]),
    "release": (
        "released", "folder",
        lambda g, o: ["release", g.model, "--benchmark", "asvspoof2021-la", "--repo-id", "org/tiny", "--license",
                      "Apache-2.0", "--dry-run", "--out", o],
    ),
    "robustness": (
        "rob", "workplace", lambda g, o: ["robustness", g.model, *own(g), "--limit", 2, "--out", o],
    ),
    "evaluate --report": (
        "report", "workplace",
        lambda g, o: ["evaluate", g.folder / "a.txt", "--keys", g.folder / "keys.txt", "--resamples", 100, "--report",
                      o],
    ),
    "evaluate --model": ("s.txt", "file", lambda g, o: ["evaluate", o, "--model", g.model, *own(g)]),
    "calibrate": (
        "s.parquet", "file", lambda g, o: ["calibrate", g.model, *own(g), "--scores", o, "--out", f"{o}-model"],
    ),
    "calibrate --out": (
        "model", "folder",
        lambda g, o: ["calibrate", g.model, *own(g), "--scores", g.folder / "s.parquet", "--out", o],
    ),
    "fuse": (
        "w.json", "file",
        lambda g, o: ["fuse", g.folder / "a.txt", g.folder / "b.txt", "--keys", g.folder / "keys.txt", "--out", o],
    ),
    "fuse --apply": (
        "f.txt", "file",
        lambda g, o: ["fuse", g.folder / "a.txt", g.folder / "b.txt", "--apply", g.folder / "weights.json", "--out",
                      o],
    ),
    "augment": ("a.flac", "file", lambda g, o: ["augment", SPEECH, o, "--recipe", g.folder / "augment.yaml"]),
    "augment --plot": (
        "a.png", "file",
        lambda g, o: ["augment", SPEECH, g.folder / "a.wav", "--recipe", g.folder / "augment.yaml", "--plot", o],
    ),
    "corpus shard": (
        "shards", "workplace",
        lambda g, o: ["corpus", "shard", "own-data", "--root", g.corpus / "manifest.csv", "--out", o],
    ),
    "score.py": ("s.txt", "file", lambda g, o: ["score.py", "--model", g.model, *own(g)[:4], "--out", o]),
    "score.py (parquet)": (
        "s.parquet", "file", lambda g, o: ["score.py", "--model", g.model, *own(g)[:4], "--out", o],
    ),
    "train.py": ("run", "workplace", lambda g, o: ["train.py", "--config", g.folder / "augment.yaml", f"output={o}"]),
    "train.py --resume": (
        "run", "workplace",
        lambda g, o: ["train.py", "--config", g.folder / "augment.yaml", "--resume", f"output={o}"],
    ),
    "average_checkpoints.py": (
        "mean", "folder", lambda g, o: ["average_checkpoints.py", g.model, g.model, "--out", o],
    ),
}  # fmt: skip
# Commands that can be continued: they may leave complete results and their folders.
RESUMED = {"robustness", "corpus shard", "score.py", "score.py (parquet)", "evaluate --model", "calibrate"} | {
    "train.py",
    "train.py --resume",
}


@pytest.fixture
def run(nes2net: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command, or a script of `training/`, in this process."""

    def call(name: Any, *arguments: Any) -> Run:
        if not str(name).endswith(".py"):
            return nes2net(name, *arguments)
        spec = importlib.util.spec_from_file_location("script", SCRIPTS / name)
        assert spec is not None and spec.loader is not None
        script = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(script)
        monkeypatch.setattr(sys, "argv", [str(name), *map(str, arguments)])
        return Run(script.main(), *capsys.readouterr())

    return call


def said(run: Run, case: str, name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Returns the error message, and prints it as a row of the table."""
    *_, sentence = run.err.strip().splitlines()
    with capsys.disabled():
        if os.environ.get("NES2NET_TABLE"):
            print(f"| {case} | {name} | {run.code} | {sentence.replace(str(place), '…')} |")
    assert sentence.lower().startswith("error: "), run.err
    return sentence


@pytest.mark.parametrize("name", COMMANDS)
def test_of_two_runs_the_second_is_refused(
    name: str, given: Given, run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    what, kind, arguments = COMMANDS[name]
    with held(tmp_path / what, kind) as process:
        before = sorted(tmp_path.rglob("*"))
        done = run(*arguments(given, tmp_path / what))
        sentence = said(done, "two runs", name, tmp_path, capsys).replace(str(process.pid), "PID")
        assert done.code == 2
        assert f"{tmp_path / what} is being written by another run (process PID): wait" in sentence
        assert sorted(tmp_path.rglob("*")) == before


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Any]:
    """Mounts a small disk."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(*options: str) -> Path:
        answer = subprocess.run(["mount", *options, str(place)], capture_output=True, text=True, check=False)
        if answer.returncode:
            pytest.skip(f"no disk can be mounted here: {answer.stderr.strip()}")
        return place

    yield mount
    subprocess.run(["umount", "-l", str(place)], check=False, capture_output=True)


@pytest.mark.parametrize(
    "free",
    [
        pytest.param(0, id="full"),
        pytest.param(4, id="4 kB free", marks=pytest.mark.slow),
        pytest.param(24, id="24 kB free", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_is_a_sentence_and_leaves_no_half_file(
    name: str, free: int, given: Given, run: Any, disk: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    what, _, arguments = COMMANDS[name]
    place = disk("-t", "tmpfs", "-o", f"size={free + 8}k", "none")
    (place / "filler").write_bytes(bytes(8192))
    done = run(*arguments(given, place / what))
    if done.code == 0 and free:  # small enough
        assert not [path for path in place.rglob("*") if path.name.startswith(".")]
        return
    sentence = said(done, f"{free} kB free", name, place, capsys)
    assert done.code == 1 and str(place) in sentence and "the disk is full" in sentence
    left = [path for path in place.rglob("*") if path.name != "filler"]
    if name not in RESUMED or not free:
        assert not [path for path in left if path.is_file() and path.stat().st_size], left
    assert not [path for path in left if path.name.startswith(".") or path.name.endswith((".part", ".new"))], left


@pytest.mark.parametrize("name", COMMANDS)
def test_a_read_only_disk_is_refused_before_the_work(
    name: str, given: Given, run: Any, disk: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    what, _, arguments = COMMANDS[name]
    place = disk("-t", "tmpfs", "none")
    disk("-o", "remount,ro")
    done = run(*arguments(given, place / what))
    sentence = said(done, "read-only", name, place, capsys)
    assert done.code == 2 and str(place) in sentence and "cannot be written: the disk is read-only" in sentence


MODEL = {
    "detect": lambda g, no: ["detect", SPEECH, "--model", no],
    "info": lambda g, no: ["info", no],
    "export": lambda g, no: ["export", no, g.folder / "graph"],
    "convert --to-official": lambda g, no: ["convert", "--to-official", no, g.folder / "x.pth"],
    "release": lambda g, no: ["release", no, *COMMANDS["release"][2](g, g.folder / "r")[2:]],
    "robustness": lambda g, no: ["robustness", no, *own(g), "--out", g.folder / "rob"],
    "evaluate": lambda g, no: ["evaluate", g.folder / "s.txt", "--model", no, *own(g)],
    "calibrate": lambda g, no: ["calibrate", no, *own(g), "--scores", g.folder / "c.parquet", "--out", g.folder / "c"],
    "demo": lambda g, no: ["demo", "--model", no],
    "score.py": lambda g, no: ["score.py", "--model", no, *own(g)[:4], "--out", g.folder / "s.txt"],
    "average_checkpoints.py": lambda g, no: ["average_checkpoints.py", no, no, "--out", g.folder / "mean"],
}
CORPUS = {
    "robustness": lambda g, no: ["robustness", g.model, "--corpus", "own-data", "--root", no],
    "evaluate": lambda g, no: ["evaluate", g.folder / "a.txt", "--corpus", "own-data", "--root", no],
    "evaluate --model": lambda g, no: [
        "evaluate", g.folder / "s.txt", "--model", g.model, "--corpus", "own-data", "--root", no,
    ],
    "calibrate": lambda g, no: ["calibrate", g.model, "--corpus", "own-data", "--root", no, "--out", g.folder / "c"],
    "corpus check": lambda g, no: ["corpus", "check", "own-data", "--root", no],
    "corpus shard": lambda g, no: ["corpus", "shard", "own-data", "--root", no, "--out", g.folder / "shards"],
    "score.py": lambda g, no: [
        "score.py", "--model", g.model, "--corpus", "own-data", "--root", no, "--out", g.folder / "s.txt",
    ],
    "train.py": lambda g, no: [
        "train.py", "--config", g.folder / "augment.yaml", f"data.root={no}", f"output={g.folder / 'run'}",
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", MODEL)
@pytest.mark.parametrize("kind", ["absent", "no config"])
def test_a_missing_model_is_2_everywhere(
    name: str, kind: str, given: Given, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = tmp_path / "no-model"
    if kind == "no config":
        model.mkdir()
    done = run(*MODEL[name](given, model))
    assert done.code == 2 and "no-model" in done.err.strip().splitlines()[-1]


@pytest.mark.parametrize("name", CORPUS)
def test_a_missing_corpus_is_2_everywhere(
    name: str, given: Given, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(*CORPUS[name](given, tmp_path / "no-corpus.csv"))
    assert done.code == 2 and "no-corpus.csv" in done.err.strip().splitlines()[-1]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [name for name, (_, kind, _) in COMMANDS.items() if kind != "workplace"])
def test_a_missing_folder_for_the_output_is_2_everywhere(name: str, given: Given, run: Any, tmp_path: Path) -> None:
    what, _, arguments = COMMANDS[name]
    if name in ("score.py", "score.py (parquet)", "evaluate --model", "release", "average_checkpoints.py"):
        pytest.skip("it makes the folder, as it always has")
    done = run(*arguments(given, tmp_path / "absent" / what))
    assert done.code == 2 and str(tmp_path / "absent") in done.err.strip().splitlines()[-1]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [name for name, (_, kind, _) in COMMANDS.items() if kind == "folder"])
def test_an_output_that_exists_is_2_everywhere(name: str, given: Given, run: Any, tmp_path: Path) -> None:
    what, _, arguments = COMMANDS[name]
    if name == "average_checkpoints.py":
        pytest.skip("it replaces the folder, as it always has")
    (tmp_path / what).mkdir()
    (tmp_path / what / "mine").touch()
    done = run(*arguments(given, tmp_path / what))
    assert done.code == 2 and f"{tmp_path / what} exists" in done.err.strip().splitlines()[-1]
    assert [path.name for path in tmp_path.rglob("*")] == [what, "mine"]


@pytest.mark.slow
def test_results_on_a_full_standard_output(given: Given) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    commands: tuple[list[Any], ...] = (
        ["detect", SPEECH, "--model", given.model],
        ["info", given.model],
        ["detect", SPEECH, "--model", given.model, "--output", "/dev/full"],
    )
    for command in commands:
        with open("/dev/full", "w", encoding="utf-8") as full:
            answer = subprocess.run(
                [sys.executable, "-m", "nes2net_cli", *map(str, command)],
                stdout=full, stderr=subprocess.PIPE, text=True, check=False,
            )  # fmt: skip
        assert answer.returncode == 1, answer.stderr
        *_, sentence = answer.stderr.strip().splitlines()
        assert sentence in {
            "Error: standard output cannot be written: the disk is full.",
            "Error: /dev/full cannot be written: the disk is full.",
        }
        assert "Exception ignored" not in answer.stderr and "Traceback" not in answer.stderr


def test_a_run_that_was_killed_does_not_hold_the_next_one_up(given: Given, run: Any, tmp_path: Path) -> None:
    output = tmp_path / "v.jsonl"
    with held(output) as process:
        process.kill()
        process.wait()
        assert (tmp_path / ".v.jsonl.lock").exists()
    arguments = COMMANDS["detect --output"][2](given, output)
    assert run(*arguments).code == 0
    assert list(tmp_path.iterdir()) == [output]


# Outputs whose suffix contradicts their format, and the advice in the message.
SUFFIXES = {
    "detect --output": ("v.xlsx", "end its name in .jsonl, .ndjson or .csv, or choose the format with --format"),
    "detect --resume": ("v.json", "end its name in .jsonl, .ndjson or .csv, or choose the format with --format"),
    "detect --plot": ("p.jpg", "end its name in .png"),
    "augment --plot": ("a.svg", "end its name in .png"),
    "augment": ("a.mp3", "must end in .wav or .flac"),
    "fuse": ("w.txt", "end its name in .json"),
    "fuse --apply": ("f.csv", "end its name in .txt"),
    "score.py": ("s.csv", "end its name in .txt or .parquet"),
    "evaluate --model": ("s.jsonl", "end its name in .txt or .parquet"),
    "calibrate": ("s.txt", "must end in .parquet"),
    "convert --to-official": ("b.safetensors", "end its name in .pth, .pt, .ckpt or .bin"),
    "convert": ("model.safetensors", "will be a folder: name it without .safetensors"),
    "export": ("model.onnx", "will be a folder: name it without .onnx"),
    "release": ("model.zip", "will be a folder: name it without .zip"),
    "robustness": ("r.csv", "will be a folder: name it without .csv"),
    "evaluate --report": ("report.HTML", "will be a folder: name it without .HTML"),
    "calibrate --out": ("config.json", "will be a folder: name it without .json"),
    "corpus shard": ("shards.tar", "will be a folder: name it without .tar"),
    "train.py": ("run.yaml", "will be a folder: name it without .yaml"),
}


@pytest.mark.parametrize("name", SUFFIXES)
def test_an_output_is_what_its_suffix_says(name: str, given: Given, run: Any, tmp_path: Path) -> None:
    what, words = SUFFIXES[name]
    done = run(*COMMANDS[name][2](given, tmp_path / what))
    *_, sentence = done.err.strip().splitlines()
    assert done.code == 2 and what in sentence and words in sentence
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["v", "v.JSONL", "v.ndjson", "v-1.0", "v.csv"])
def test_outputs_of_detect_by_their_suffix(name: str, given: Given, run: Any, tmp_path: Path) -> None:
    assert run(*COMMANDS["detect --output"][2](given, tmp_path / name)).code == 0
    content = (tmp_path / name).read_bytes()
    assert content.startswith(b"\xef\xbb\xbffile," if name.endswith("csv") else b'{"file"')


def test_a_form_that_is_chosen_needs_no_suffix(given: Given, run: Any, tmp_path: Path) -> None:
    assert run(*COMMANDS["detect --output"][2](given, tmp_path / "v.txt"), "--format", "csv").code == 0
    assert (tmp_path / "v.txt").read_bytes().startswith(b"\xef\xbb\xbffile,")
