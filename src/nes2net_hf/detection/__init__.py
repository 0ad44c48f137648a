"""
Detection: recordings in, verdicts out. `nes2net detect` and `nes2net_hf.detect` use this package.

    detector.py    the model, and the run from recordings to results
    results.py     the fields of a verdict
    recordings.py  a recording while it is judged: windows, warnings, errors
    windows.py     reads recordings and cuts them into windows
    turns.py       the turns of speakers: RTTM, and windows that hold one speaker
    batches.py     batches of windows from many recordings, decoded in a thread
    deciding.py    how window scores become a verdict
    live.py        verdicts while a recording goes on
    sequential.py  the running verdict: Wald's test on windows that are alike
    speech.py      whether there is speech at all
    words.py       text for people: verdicts, times, numbers
    writers.py     JSON Lines, CSV and tables; --resume
    plot.py        --plot
"""

from ..errors import AudioError, DetectionError, ModelError
from .detector import CHANNELS, DEMO_NOTICE, Detector, detect
from .live import LiveDetector, LiveVerdict
from .recordings import Unreadable, list_recordings
from .results import SCHEMA_VERSION, Result, Stretch, WindowScore
from .windows import ALL_TRACKS
from .words import clock

__all__ = [
    "ALL_TRACKS",
    "CHANNELS",
    "DEMO_NOTICE",
    "SCHEMA_VERSION",
    "AudioError",
    "DetectionError",
    "Detector",
    "LiveDetector",
    "LiveVerdict",
    "ModelError",
    "Result",
    "Stretch",
    "Unreadable",
    "WindowScore",
    "clock",
    "detect",
    "list_recordings",
]
