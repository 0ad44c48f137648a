"""
Is a recording like those that a model was calibrated on? If not, its calibration says nothing about it.

The distance of a recording is that of its pooled embedding from the nearer class of the calibration data, by
Mahalanobis with one covariance for both classes (Lee et al. 2018, arXiv 1807.03888), shrunk towards a multiple of the
identity (Ledoit & Wolf 2004). Beside it stand bandwidth, level, duration and silence. Limits are set on speakers that
a fit had not seen, so that about 1 % of the recordings like those of the calibration are called unlike them (more, if
there are fewer than a hundred).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from .errors import CalibrationError, ModelError
from .files import atomic_file

FILE = "familiarity.safetensors"
RATE = 0.01  # of false warnings
_DIMENSIONS = 32  # at most, of the embeddings' principal components
# Statistic of `audio.cues` → its name, how a value is spelt, and the least spread that counts.
_CUES = {
    "rolloff_99": ("its bandwidth", "{:.1f} kHz", 0.1),
    "rms": ("its level", "{:.0f} dBFS", 1.0),
    "duration": ("its duration", "{:.1f} s", 0.1),
    "silent_40": ("its share of silence", "{:.0%}", 0.01),
}


@dataclass(frozen=True)
class Familiarity:
    """
    The calibration data, as far as a recording is compared with it.

    Args:
        center: (D,) mean of the embeddings.
        projection: (D, K) to their principal components, scaled to unit variance within the classes.
        means: (2, K) of the classes.
        usual: distance and each cue → its lowest, middle and highest usual value.
        limit: how many times as far from the middle as the usual ends a recording may be.
    """

    center: NDArray[np.float32]
    projection: NDArray[np.float32]
    means: NDArray[np.float32]
    usual: dict[str, tuple[float, float, float]]
    limit: float

    def reasons(self, embedding: NDArray[np.float32] | None, cues: Mapping[str, float]) -> list[str]:
        """
        Returns what is unusual about a recording, in words; an empty list if it is like the calibration data.

        Args:
            embedding: (D,) mean over its windows, or None if it is not known.
            cues: its statistics, see `measure_cues`.
        """
        found = []
        for name, value, excess in self._excesses(embedding, cues):
            if excess <= self.limit:
                continue
            if name == "distance":
                found.append("it sounds unlike them")
                continue
            words, form, _ = _CUES[name]
            low, _, high = self.usual[name]
            found.append(f"{words} of {form.format(value)} is not between {form.format(low)} and {form.format(high)}")
        return found

    def excess(self, embedding: NDArray[np.float32] | None, cues: Mapping[str, float]) -> float:
        """Returns the largest excess of a recording: 1 at the usual ends."""
        return max(excess for _, _, excess in self._excesses(embedding, cues))

    def _excesses(
        self, embedding: NDArray[np.float32] | None, cues: Mapping[str, float]
    ) -> list[tuple[str, float, float]]:
        values = {name: cues[name] for name in _CUES}
        if embedding is not None:
            place = (embedding - self.center) @ self.projection
            values["distance"] = float(np.sqrt(np.square(place - self.means).sum(axis=1).min()))
        found = []
        for name, value in values.items():
            low, middle, high = self.usual[name]
            end = high if value >= middle else low
            found.append((name, value, abs(value - middle) / max(abs(end - middle), 1e-6)))
        return found

    def save(self, folder: Path) -> None:
        """Writes the file `FILE` in a model's folder."""
        tensors: dict[str, NDArray[Any]] = {
            "center": self.center,
            "projection": self.projection.astype(np.float16),
            "means": self.means,
        }
        notes = json.dumps({"usual": self.usual, "limit": self.limit})
        with atomic_file(folder / FILE, "wb") as file:
            file.write(save(tensors, metadata={"notes": notes}))  # several entries would have no fixed order

    @classmethod
    def load(cls, path: Path) -> Familiarity:
        """
        Reads what `save` wrote.

        Raises:
            ModelError: the file is damaged.
        """
        try:
            with safe_open(path, framework="numpy") as file:
                tensors = {name: file.get_tensor(name) for name in ("center", "projection", "means")}
                notes = json.loads((file.metadata() or {})["notes"])
            usual = {name: tuple(map(float, values)) for name, values in notes["usual"].items()}
            tensors["projection"] = tensors["projection"].astype(np.float32)
            return cls(**tensors, usual=usual, limit=float(notes["limit"]))  # type: ignore[arg-type]
        except (SafetensorError, OSError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise ModelError(f"{path} is damaged ({error}): run nes2net calibrate again.") from None


def fit_familiarity(
    embeddings: NDArray[np.float32],
    cues: Sequence[Mapping[str, float]],
    labels: NDArray[np.int8],
    first: NDArray[np.bool_],
) -> Familiarity:
    """
    Fits on N recordings. The limits are those of each half of the recordings by a fit on the other half.

    Args:
        embeddings: (N, D).
        cues: the statistics of each.
        labels: (N,) 1 for bona fide, 0 for spoofed.
        first: (N,) which are in the first half; the speakers of the halves differ.

    Raises:
        CalibrationError: a half has too few recordings of a class.
    """
    for half in (first, ~first):
        for label in (0, 1):
            if (half & (labels == label)).sum() < 5:
                raise CalibrationError("a half of the speakers has fewer than 5 recordings of a class.")
    held_out = np.empty(len(labels))
    for half in (first, ~first):
        seen = [one for one, inside in zip(cues, half, strict=True) if inside]
        fitted = _fit(embeddings[half], seen, labels[half], limit=1.0)
        for number in np.flatnonzero(~half).tolist():
            held_out[number] = fitted.excess(embeddings[number], cues[number])
    rank = math.ceil((1 - RATE) * (len(held_out) + 1))
    limit = float(np.sort(held_out)[min(rank, len(held_out)) - 1])
    return _fit(embeddings, cues, labels, limit)


def _fit(
    embeddings: NDArray[np.float32], cues: Sequence[Mapping[str, float]], labels: NDArray[np.int8], limit: float
) -> Familiarity:
    center = embeddings.mean(axis=0)
    dimensions = max(1, min(_DIMENSIONS, len(embeddings) // 10, embeddings.shape[1]))
    _, _, directions = np.linalg.svd(embeddings - center, full_matrices=False)
    components = directions[:dimensions].T.astype(np.float64)
    places = (embeddings - center) @ components
    means = np.stack([places[labels == label].mean(axis=0) for label in (0, 1)])
    inside = places - means[labels.astype(int)]
    covariance = _shrunk(inside)
    values, vectors = np.linalg.eigh(covariance)
    whiten = vectors / np.sqrt(np.maximum(values, 1e-12))
    distances = np.sqrt(np.square((places @ whiten)[:, None] - (means @ whiten)[None]).sum(axis=2).min(axis=1))
    usual = {"distance": (0.0, float(np.median(distances)), float(np.quantile(distances, 0.99)))}
    for name, (_, _, least) in _CUES.items():
        low, middle, high = np.quantile([one[name] for one in cues], [0.01, 0.5, 0.99])
        usual[name] = (float(min(low, middle - least)), float(middle), float(max(high, middle + least)))
    projection = (components @ whiten).astype(np.float16).astype(np.float32)  # as it is kept
    return Familiarity(center.astype(np.float32), projection, (means @ whiten).astype(np.float32), usual, limit)


def _shrunk(inside: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the covariance (K, K) of centred rows (N, K), shrunk as Ledoit & Wolf (2004, section 3.2) estimate."""
    n, k = inside.shape
    covariance = inside.T @ inside / n
    mean = np.trace(covariance) / k
    distance = np.square(covariance - mean * np.eye(k)).sum()
    noise = (np.square(np.square(inside).sum(axis=1)).sum() / n - np.square(covariance).sum()) / n
    weight = 0.0 if distance <= 0 else min(1.0, max(0.0, noise / distance))
    return weight * mean * np.eye(k) + (1 - weight) * covariance
