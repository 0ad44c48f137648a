"""
Is a recording like those that a model was calibrated on? If not, its calibration says nothing about it.

The distance of a recording is that of its pooled embedding from the nearer class of the calibration data, by
Mahalanobis with one covariance for both classes (Lee et al. 2018, arXiv 1807.03888), shrunk towards a multiple of the
identity (Ledoit & Wolf 2004). Beside it stand bandwidth, level, noise, duration and silence. Each has limits of its
own, set so that together about 1 % of the recordings like those of the calibration are called unlike them. With N
recordings, fewer than a thousand, it is 12 / N.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
# Statistic → its name, how a value is spelt, and how far from the middle a value is never unusual.
_CUES = {
    "rolloff_99": ("its bandwidth", "{:.1f} kHz", 0.1),
    "rms": ("its level", "{:.0f} dBFS", 1.0),
    "contrast": ("its level above the noise floor", "{:.0f} dB", 1.0),
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
        limits: distance and each cue → the lowest and the highest value that is not unusual.
    """

    center: NDArray[np.float32]
    projection: NDArray[np.float32]
    means: NDArray[np.float32]
    limits: dict[str, tuple[float, float]]

    def reasons(self, embedding: NDArray[np.float32] | None, cues: Mapping[str, float]) -> list[str]:
        """
        Returns what is unusual about a recording, in words; an empty list if it is like the calibration data.

        Args:
            embedding: (D,) mean over its windows, or None if it is not known.
            cues: its statistics, see `measure_cues`.
        """
        found = []
        for name, value in self.measure(embedding, cues).items():
            low, high = self.limits[name]
            if low <= value <= high:
                continue
            if name == "distance":
                found.append("it sounds unlike them")
                continue
            words, form, _ = _CUES[name]
            found.append(f"{words} of {form.format(value)} is not between {form.format(low)} and {form.format(high)}")
        return found

    def measure(self, embedding: NDArray[np.float32] | None, cues: Mapping[str, float]) -> dict[str, float]:
        """Returns what is compared: the distance, if there is an embedding, and the cues."""
        values = {**cues, "contrast": cues["rms"] - cues["floor"]}
        found = {name: values[name] for name in _CUES}
        if embedding is None:
            return found
        place = (embedding - self.center) @ self.projection
        return {"distance": float(np.sqrt(np.square(place - self.means).sum(axis=1).min()))} | found

    def save(self, folder: Path) -> None:
        """Writes the file `FILE` in a model's folder."""
        tensors: dict[str, NDArray[Any]] = {
            "center": self.center,
            "projection": self.projection.astype(np.float16),
            "means": self.means,
        }
        notes = json.dumps({"limits": self.limits})
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
            limits = {
                name: (float(notes["limits"][name][0]), float(notes["limits"][name][1]))
                for name in ("distance", *_CUES)
            }
            tensors["projection"] = tensors["projection"].astype(np.float32)
            return cls(**tensors, limits=limits)
        except (SafetensorError, OSError, LookupError, ValueError, TypeError, AttributeError) as error:
            raise ModelError(f"{path} is damaged ({error}): run nes2net calibrate again.") from None


def fit_familiarity(
    embeddings: NDArray[np.float32],
    cues: Sequence[Mapping[str, float]],
    labels: NDArray[np.int8],
    first: NDArray[np.bool_],
) -> Familiarity:
    """
    Fits the distance on one half of the recordings, and its limit on the other. All recordings limit the cues.

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
    fitted = _fit(embeddings[first], labels[first])
    measured = [fitted.measure(one, its) for one, its in zip(embeddings, cues, strict=True)]
    distances = [its["distance"] for its, seen in zip(measured, first, strict=True) if not seen]
    limits = {"distance": (0.0, _extremes(distances)[1])}
    for name, (_, _, margin) in _CUES.items():
        values = [its[name] for its in measured]
        low, high = _extremes(values)
        middle = float(np.median(values))
        limits[name] = min(low, middle - margin), max(high, middle + margin)
    return replace(fitted, limits=limits)


def _extremes(values: Sequence[float]) -> tuple[float, float]:
    """Returns the limits beyond which a new value lies so rarely that all limits together have `RATE` of them."""
    ordered = sorted(values)
    beyond = max(1, round(RATE * (len(ordered) + 1) / (2 * len(_CUES) + 1)))
    return ordered[beyond - 1], ordered[-beyond]


def _fit(embeddings: NDArray[np.float32], labels: NDArray[np.int8]) -> Familiarity:
    """Returns a fit without limits."""
    center = embeddings.mean(axis=0)
    dimensions = max(1, min(_DIMENSIONS, len(embeddings) // 10, embeddings.shape[1]))
    _, _, directions = np.linalg.svd(embeddings - center, full_matrices=False)
    components = directions[:dimensions].T.astype(np.float64)
    places = (embeddings - center) @ components
    means = np.stack([places[labels == label].mean(axis=0) for label in (0, 1)])
    covariance = _shrunk(places - means[labels.astype(int)])
    values, vectors = np.linalg.eigh(covariance)
    whiten = vectors / np.sqrt(np.maximum(values, 1e-12))
    projection = (components @ whiten).astype(np.float16).astype(np.float32)  # as it is kept
    return Familiarity(center.astype(np.float32), projection, (means @ whiten).astype(np.float32), {})


def _shrunk(inside: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the covariance (K, K) of centred rows (N, K), shrunk as Ledoit & Wolf (2004, section 3.2) estimate."""
    n, k = inside.shape
    covariance = inside.T @ inside / n
    mean = np.trace(covariance) / k
    distance = np.square(covariance - mean * np.eye(k)).sum()
    noise = (np.square(np.square(inside).sum(axis=1)).sum() / n - np.square(covariance).sum()) / n
    weight = 0.0 if distance <= 0 else min(1.0, max(0.0, noise / distance))
    return weight * mean * np.eye(k) + (1 - weight) * covariance
