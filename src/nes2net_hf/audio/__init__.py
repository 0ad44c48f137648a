"""Read any recording as float32 at 16 kHz, in blocks. `reading` has an example."""

from ..errors import AudioError
from .decoders import MAX_RATE, MIN_RATE
from .reading import (
    AUDIO_SUFFIXES,
    CHANNELS,
    MIN_DURATION,
    SAMPLING_RATE,
    AudioInfo,
    AudioStream,
    AudioSummary,
    find_audio,
    holds_sound,
    list_audio,
    open_audio,
    read_audio,
    resampler,
    seconds_of_sound,
    without_suffix,
)
from .windows import iter_windows

__all__ = [
    "AUDIO_SUFFIXES",
    "CHANNELS",
    "MAX_RATE",
    "MIN_DURATION",
    "MIN_RATE",
    "SAMPLING_RATE",
    "AudioError",
    "AudioInfo",
    "AudioStream",
    "AudioSummary",
    "find_audio",
    "holds_sound",
    "iter_windows",
    "list_audio",
    "open_audio",
    "read_audio",
    "resampler",
    "seconds_of_sound",
    "without_suffix",
]
