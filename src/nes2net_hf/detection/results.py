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
    """What a model of frames calls spoofed; None of a model that judges utterances."""
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
        """
        What to listen to: what a model of frames calls spoofed, or else windows in a row below the threshold. Nothing
        where there is no threshold, or no label.
        """
        if self.spoofed is not None:
            return self.spoofed
        stretches = []
        for below, group in groupby(self.windows, lambda window: self.is_below(window.score)):
            windows = list(group)
            if below:
                scores = [window.score for window in windows if window.score is not None]
                stretches.append(Stretch(windows[0].start, windows[-1].end, sum(scores) / len(scores)))
        return stretches

    def is_below(self, score: float | None) -> bool:
        """Whether a window with this score lies below the threshold, in a recording that has a label."""
        return None not in (score, self.threshold, self.label) and score < self.threshold  # type: ignore[operator]

    def to_dict(self) -> dict[str, Any]:
        """The fields in the order above, floats rounded to six decimals (times to the sample)."""
        return _rounded(asdict(self))


def clock(seconds: float) -> str:
    """65.25 → "1:05.2", 3665 → "1:01:05.0"."""
    tenths = int(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}:{minutes:02}" if hours else f"{minutes}") + f":{rest // 10:02}.{rest % 10}"


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value
