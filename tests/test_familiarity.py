"""Recordings unlike those of the calibration are told, and those like them only as often as stated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nes2net_hf.errors import CalibrationError, ModelError
from nes2net_hf.familiarity import FILE, RATE, Familiarity, fit_familiarity

SIZE = 24
TYPICAL = {"rolloff_99": 3.0, "rms": -26.0, "floor": -70.0, "duration": 5.0, "silent_40": 0.2}


def population(count: int, seed: int) -> tuple[np.ndarray, list[dict[str, float]], np.ndarray]:
    """Embeddings of two classes with unequal variances, cues, and labels."""
    draws = np.random.default_rng(seed)
    labels = (np.arange(count) % 2).astype(np.int8)
    spread = np.linspace(0.1, 3.0, SIZE)
    embeddings = draws.normal(0, 1, (count, SIZE)) * spread + labels[:, None] * np.linspace(0, 2, SIZE)
    names = {"rolloff_99": (3.0, 0.5), "rms": (-26.0, 2.0), "floor": (-70.0, 2.0), "duration": (5.0, 1.0),
             "silent_40": (0.2, 0.05)}  # fmt: skip
    cues = [{name: float(draws.normal(*shape)) for name, shape in names.items()} for _ in range(count)]
    return embeddings.astype(np.float32), cues, labels


@pytest.fixture(scope="module")
def known() -> Familiarity:
    embeddings, cues, labels = population(2_000, 1)
    return fit_familiarity(embeddings, cues, labels, np.arange(2_000) % 4 < 2)


def test_the_share_of_false_warnings_is_the_stated_one(known: Familiarity) -> None:
    embeddings, cues, _ = population(4_000, 2)
    flagged = np.mean([bool(known.reasons(*pair)) for pair in zip(embeddings, cues, strict=True)])
    assert RATE / 3 < flagged < 3 * RATE


@pytest.mark.parametrize("count", [100, 200, 400, 1_000])
def test_few_recordings_do_not_make_every_other_one_unusual(count: int) -> None:
    """The spectrum of the embeddings falls off slowly, as that of a network's does."""
    draws, size = np.random.default_rng(5), 256
    spread = np.linspace(1.0, 0.3, size)

    def more(number: int) -> np.ndarray:
        return (draws.normal(0, 1, (number, size)) * spread).astype(np.float32)

    cues, labels = population(count, 3)[1:]
    fitted = fit_familiarity(more(count), cues, labels, np.arange(count) % 4 < 2)
    others = population(500, 4)[1]
    flagged = np.mean([bool(fitted.reasons(one, its)) for one, its in zip(more(500), others, strict=True)])
    assert flagged <= max(3 * RATE, 3 * 12 / count)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rolloff_99": 9.0}, "its bandwidth of 9.0 kHz is not between"),
        ({"rms": -66.0, "floor": -110.0}, "its level of -66 dBFS"),
        ({"floor": -31.0}, "its level above the noise floor of 5 dB"),
        ({"duration": 60.0}, "its duration of 60.0 s"),
        ({"silent_40": 0.9}, "its share of silence of 90%"),
    ],
)
def test_an_unusual_cue_is_named(known: Familiarity, change: dict[str, float], words: str) -> None:
    embeddings, _, _ = population(1, 3)
    assert known.reasons(embeddings[0], TYPICAL) == []
    [reason] = known.reasons(embeddings[0], TYPICAL | change)
    assert words in reason
    assert known.reasons(None, TYPICAL | change) == [reason]  # without an embedding, as from an ONNX graph


def test_an_unusual_embedding_is_told_along_directions_that_hardly_vary(known: Familiarity) -> None:
    embeddings, _, _ = population(1, 3)
    moved = embeddings[0].copy()
    moved[0] += 3.0  # thirty standard deviations
    assert known.reasons(moved, TYPICAL) == ["it sounds unlike them"]
    moved = embeddings[0].copy()
    moved[-1] += 3.0  # one
    assert known.reasons(moved, TYPICAL) == []


def test_it_is_kept_beside_the_weights(known: Familiarity, tmp_path: Path) -> None:
    known.save(tmp_path)
    kept = Familiarity.load(tmp_path / FILE)
    assert kept.limits == known.limits
    assert all((getattr(kept, name) == getattr(known, name)).all() for name in ("center", "projection", "means"))
    for damage in (b"", b"x" * 100, (tmp_path / FILE).read_bytes()[:200]):
        (tmp_path / FILE).write_bytes(damage)
        with pytest.raises(ModelError, match=r"familiarity\.safetensors is damaged .*run nes2net calibrate again"):
            Familiarity.load(tmp_path / FILE)


def test_too_few_recordings_are_a_sentence() -> None:
    embeddings, cues, labels = population(12, 1)
    with pytest.raises(CalibrationError, match="fewer than 5 recordings"):
        fit_familiarity(embeddings, cues, labels, np.arange(12) % 4 < 2)


def test_more_dimensions_than_recordings(known: Familiarity) -> None:
    draws = np.random.default_rng(0)
    labels = (np.arange(40) % 2).astype(np.int8)
    cues: list[dict[str, Any]] = population(40, 1)[1]
    wide = fit_familiarity(draws.normal(0, 1, (40, 512)).astype(np.float32), cues, labels, np.arange(40) % 4 < 2)
    assert wide.projection.shape == (512, 2) and np.isfinite(wide.projection).all()
