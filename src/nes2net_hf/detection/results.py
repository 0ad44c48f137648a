"""What a verdict holds."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import Any

SCHEMA_VERSION = 1
TOO_SHORT, NO_SPEECH = "too short to judge", "no speech found"


@dataclass
class WindowScore:
    start: float
    """Seconds."""
    end: float
    """Seconds; before the window's own end where the recording is shorter than a window."""
    score: float | None
    """None where the window holds no sound (never rises above -60 dBFS): it is not judged."""
    looks_fake: bool = False
    """Whether it lies below the threshold, or has log-odds below 0 where none is known. Without a label, false."""


@dataclass
class Stretch:
    """A passage below the threshold: frames in a row, or windows in a row."""

    start: float
    """Seconds."""
    end: float
    score: float
    """Mean over its frames or windows."""


@dataclass
class Result:
    """The verdict on one recording, or on one channel of it; `error` says why there is none."""

    file: str
    channel: int | None = None
    """Counted from 0 where a channel was judged by itself; None where the mix was, or where it cannot be read."""
    track: int | None = None
    """Counted from 0, of a file with several audio tracks; else None."""
    duration: float | None = None
    score: float | None = None
    """Mean over the windows that hold sound, of a model of frames the lowest of them; higher = bona fide."""
    label: str | None = None
    """`bonafide` from the threshold on, `spoof` below; None where the verdict is `undecided`."""
    undecided: str | None = None
    """Why a recording with a score has no label: "too short to judge" or "no speech found"."""
    llr: float | None = None
    """Natural log-likelihood ratio of bona fide over spoof, of a calibrated model."""
    spoof_probability: float | None = None
    """
    Probability that the recording is spoofed, from the ratio and the `prior`; of a calibrated model. It differs from
    what transformers' pipeline prints, which is the softmax of the first window's logits: no probability of spoofing.
    """
    prior: float | None = None
    """The share of spoofed recordings that is assumed before a recording is heard."""
    threshold: float | None = 0.0
    """None where the score is the bona fide logit and no threshold is known: the label is that of the log-odds."""
    min_window_score: float | None = None
    min_window_start: float | None = None
    windows: list[WindowScore] = field(default_factory=list)
    spoofed: list[Stretch] | None = None
    """What a model of frames calls spoofed; None of a model that judges utterances, and where there is no verdict."""
    warnings: list[str] = field(default_factory=list)
    model: str = ""
    schema_version: int = SCHEMA_VERSION
    error: str | None = None

    @property
    def name(self) -> str:
        """The file, and which of its tracks and channels."""
        where = {"track": self.track, "channel": self.channel}
        places = [f"{what} {number}" for what, number in where.items() if number is not None]
        return f"{self.file} ({', '.join(places)})" if places else self.file

    def suspicious(self) -> list[Stretch]:
        """What to listen to: what a model of frames calls spoofed, or else windows in a row that look fake."""
        if self.spoofed is not None:
            return self.spoofed
        stretches = []
        for fake, group in groupby(self.windows, lambda window: window.looks_fake):
            windows = list(group)
            if fake:
                scores = [window.score for window in windows if window.score is not None]
                stretches.append(Stretch(windows[0].start, windows[-1].end, sum(scores) / len(scores)))
        return stretches

    def to_dict(self) -> dict[str, Any]:
        """The fields in the order above, floats rounded to six decimals (times to the sample)."""
        return _rounded(asdict(self))


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value
