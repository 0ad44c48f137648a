"""What is published: how long it takes to start, and that wheel and sdist hold what they should and no more."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tarfile
from email.parser import BytesParser
from pathlib import Path
from zipfile import ZipFile

import pytest

from nes2net_hf import __version__

ROOT = Path(__file__).parents[1]

# Seconds of processor time, which a busy machine does not stretch as it does those of the clock. What the baseline has
# imported is not imported twice, so that the difference of two interpreters is measured in one, without their noise.
BEYOND_TRANSFORMERS = """
import time
from transformers import PreTrainedModel, AutoModelForAudioClassification
start = time.process_time()
import nes2net_hf
passed = time.process_time() - start
from transformers import MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING, AutoConfig
assert type(AutoConfig.for_model("nes2net")) in MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING
print(passed)
"""
HELP = """
import sys, time
import nes2net_cli
sys.argv = ["nes2net", "--help"]
try:
    nes2net_cli.main()
except SystemExit as ending:
    assert not ending.code, ending.code
assert not {"torch", "transformers"} & set(sys.modules)
print()
print(time.process_time())
"""


def python(*arguments: str | Path, code: int = 0, **options: object) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter, and what it left behind."""
    answer = subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, encoding="utf-8", check=False, **options
    )  # type: ignore[call-overload]
    assert answer.returncode == code, answer.stdout + answer.stderr
    return answer


def seconds(program: str) -> float:
    answer = python("-c", program, env=os.environ | {"PYTHONIOENCODING": "utf-8"})
    return float(answer.stdout.splitlines()[-1])


@pytest.mark.slow
def test_the_package_is_imported_and_registered_within_50_ms_of_transformers() -> None:
    assert any(seconds(BEYOND_TRANSFORMERS) <= 0.05 for _ in range(4)), "four times of four it took longer"


def test_help_comes_within_a_second_and_without_torch() -> None:
    assert any(seconds(HELP) <= 1 for _ in range(4)), "four times of four it took longer"


def test_wrong_usage_is_answered_before_the_package_is_imported_and_a_broken_import_is_a_sentence(
    tmp_path: Path,
) -> None:
    (tmp_path / "transformers.py").write_text("raise OSError('libc10.so: cannot open shared object file')")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    wrong = python("-m", "nes2net_cli", "detect", "--modle", "x", code=2, env=environment)
    assert "No such option: --modle" in wrong.stderr
    broken = python("-m", "nes2net_cli", "info", code=1, env=environment)
    assert broken.stderr == "Error: libc10.so: cannot open shared object file.\n"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel that is made of it, and in `direct` the wheel of the checkout itself."""
    pytest.importorskip("build", reason="the extra `dev` is not installed")
    out = tmp_path_factory.mktemp("dist")
    build = ["-m", "build", *(["--no-isolation"] if importlib.util.find_spec("hatchling") else [])]
    python(*build, "--outdir", out, ROOT)
    python(*build, "--wheel", "--outdir", out / "direct", ROOT)
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (path,) = built.glob("*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_holds_what_runs_and_no_more(wheel: Path) -> None:
    assert wheel.stat().st_size < 15e6
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        about = BytesParser().parsebytes(archive.read(metadata))
        entries = archive.read(metadata.replace("METADATA", "entry_points.txt")).decode()
    sources = {file for file in (ROOT / "src").rglob("*") if file.is_file() and "__pycache__" not in file.parts}
    expected = {"nes2net_hf/model_cards/licenses/Apache-2.0.txt"}
    expected |= {file.relative_to(ROOT / "src").as_posix() for file in sources}
    # The folder's own README is needed in the repository only.
    cards = {file for file in (ROOT / "model_cards").rglob("*") if file.suffix in (".md", ".yaml", ".txt")}
    expected |= {"nes2net_hf/" + file.relative_to(ROOT).as_posix() for file in cards if file.name != "README.md"}
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert {
        "nes2net_hf/py.typed",
        "nes2net_hf/models/nes2net-demo/model.safetensors",
        "nes2net_hf/samples/bonafide.flac",
        "nes2net_hf/samples/spoof.flac",
        "nes2net_hf/page/static/page.css",
        "nes2net_hf/evaluation/report.html",
        "nes2net_hf/evaluation/report.md",
        "nes2net_hf/model_cards/release.md",
        "nes2net_hf/model_cards/converted.md",
        "nes2net_hf/model_cards/benchmarks/asvspoof2021-la.yaml",
        "nes2net_hf/metrics/modules/eer/eer.py",
    } <= names

    assert about["Name"] == "nes2net_hf" and about["Version"] == __version__
    assert "Typing :: Typed" in about.get_all("Classifier", [])
    held = {name.partition("/licenses/")[2] for name in names if ".dist-info/licenses/" in name}
    assert held == set(about.get_all("License-File", []))
    assert {"LICENSE", "LICENSES/README.md", "model_cards/licenses/GPL-3.0-only.txt"} <= held
    assert "nes2net = nes2net_cli:main" in entries


@pytest.mark.slow
def test_the_sdist_makes_the_same_wheel_and_holds_no_leavings(built: Path, wheel: Path) -> None:
    (direct,) = (built / "direct").glob("*.whl")
    with ZipFile(wheel) as ours, ZipFile(direct) as theirs:
        assert sorted(ours.namelist()) == sorted(theirs.namelist())
        assert [name for name in ours.namelist() if ours.read(name) != theirs.read(name)] == []
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "tests/conftest.py", "training/train.py", "LICENSES/Festvox.txt"} <= names
    scratch = {".git", ".venv", "__pycache__", ".hypothesis", ".pytest_cache", ".mypy_cache", "runs", "demo-corpus"}
    assert [name for name in names if scratch & set(name.split("/"))] == []


@pytest.mark.slow
def test_twine_finds_nothing_to_say_against_them(built: Path, wheel: Path) -> None:
    pytest.importorskip("twine", reason="the extra `dev` is not installed")
    python("-m", "twine", "check", "--strict", wheel, *built.glob("*.tar.gz"))


@pytest.mark.slow
def test_the_wheel_judges_the_samples_where_the_checkout_is_not(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    python("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", site, wheel)
    answer = python(
        *("-m", "nes2net_cli", "detect", "--demo", "--format", "jsonl", "--device", "cpu"),
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(site)},
    )
    rows = [json.loads(line) for line in answer.stdout.splitlines()]
    assert [(Path(row["file"]).name, row["label"]) for row in rows] == [
        ("bonafide.flac", "bonafide"),
        ("spoof.flac", "spoof"),
    ]
    assert all(Path(row["file"]).is_relative_to(site) for row in rows), "another installation answered"
