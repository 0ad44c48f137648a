"""The fields of a verdict."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import Any

SCHEMA_VERSION = 2
VERDICT_FIELDS = {"file", "score", "model", "error"}  # every version writes them: a table with them is ours
TOO_SHORT, NO_SPEECH = "too short to judge", "no speech found"


@dataclass
class WindowScore:
    start: float
    """Seconds."""
    end: float
    """Seconds; the end of the recording, if that is shorter than a window."""
    score: float | None
    """None if the window has no sound (it never rises above -60 dBFS) and was not judged."""
    parts: list[tuple[float, float]] | None = field(default=None, kw_only=True)
    """Starts and ends of the short turns of a speaker that were joined to this window, in seconds; else None."""
    looks_fake: bool = False
    """Whether its score is below the threshold or, without one, its log-odds are below 0. False without a label."""


@dataclass
class Stretch:
    """A passage below the threshold: a run of frames or windows."""

    start: float
    """Seconds."""
    end: float
    score: float
    """Mean over its frames or windows."""


@dataclass
class Result:
    """The verdict on a recording, or on one of its channels. If there is none, `error` says why."""

    file: str
    channel: int | None = None
    """Counted from 0, if channels were judged separately. None for the mix, and if the file cannot be read."""
    track: int | None = None
    """Counted from 0, if the file has several audio tracks; else None."""
    speaker: str | None = field(default=None, kw_only=True)
    """If the turns of speakers were given, whose were judged; else None."""
    duration: float | None = None
    score: float | None = None
    """Mean over the windows with sound; for a model of frames, the lowest frame. Higher means bona fide."""
    label: str | None = None
    """
    `bonafide` at or above the threshold, `spoof` below. `undecided` if the score allows neither with the accepted
    share of errors. None if the recording cannot be judged. `undecided` says why.
    """
    attack: str | None = None
    """The likeliest kind of spoof if the label is `spoof`, from a model that tells several kinds apart; else None."""
    undecided: str | None = None
    """Why a recording with a score is not called bona fide or spoof, such as "too short to judge"."""
    standing: str | None = None
    """Where the score stands among those of the recordings that the model was calibrated on."""
    llr: float | None = None
    """Log-likelihood ratio of bona fide to spoof (natural log), from a calibrated model."""
    spoof_probability: float | None = None
    """
    Probability that the recording is spoofed, from `llr` and `prior`; calibrated models only. The `score` of
    transformers' pipeline is something else, the softmax of the first window's logits: no probability of spoofing.
    """
    support: str | None = None
    """How strongly `llr` supports which verdict, in words; calibrated models only."""
    prior: float | None = None
    """Prior probability of spoofing: the assumed share of spoofed recordings."""
    threshold: float | None = 0.0
    """None if the score is the bona fide logit and no threshold is known. The log-odds then decide the label."""
    spoof_below: float | None = None
    """Set if an accepted share of errors decides the label: lower scores are labelled `spoof`."""
    bonafide_above: float | None = None
    """Higher scores are then labelled `bonafide`, and those in between `undecided`."""
    min_window_score: float | None = None
    min_window_start: float | None = None
    windows: list[WindowScore] = field(default_factory=list)
    spoofed: list[Stretch] | None = None
    """Stretches that a model of frames calls spoofed. None for a model of utterances, and without a verdict."""
    warnings: list[str] = field(default_factory=list)
    model: str = ""
    dtype: str = "float32"
    """Precision of the model, or `onnx` for that of an export. Scores of different precisions differ a little."""
    schema_version: int = SCHEMA_VERSION
    error: str | None = None

    @property
    def name(self) -> str:
        """The file, with its track, channel and speaker."""
        where = {"track": self.track, "channel": self.channel, "speaker": self.speaker}
        places = [f"{what} {number}" for what, number in where.items() if number is not None]
        return f"{self.file} ({', '.join(places)})" if places else self.file

    def suspicious(self) -> list[Stretch]:
        """Returns the passages to listen to: `spoofed` for a model of frames, else runs of windows that look fake."""
        if self.spoofed is not None:
            return self.spoofed
        stretches = []
        for fake, group in groupby(self.windows, lambda window: window.looks_fake):
            windows = [(window, window.score) for window in group if window.score is not None]
            if not fake or not windows:
                continue
            if self.speaker is None:
                score = sum(score for _, score in windows) / len(windows)
                stretches.append(Stretch(windows[0][0].start, windows[-1][0].end, score))
                continue
            for window, score in windows:  # others may speak between them
                parts = window.parts or [(window.start, window.end)]
                stretches += [Stretch(start, end, score) for start, end in parts]
        return stretches

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields in the order above, with floats rounded to six decimals (finer than a sample)."""
        return rounded(asdict(self))


def rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value
