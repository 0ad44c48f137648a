"""
Detection: recordings in, verdicts out. What `nes2net detect` and `nes2net_hf.detect` run.

    detector.py    the model, and how windows become a verdict
    results.py     what a verdict holds
    recordings.py  one recording on its way to its verdict: its windows, warnings and errors
    batches.py     windows of many recordings judged together, decoded in a thread
    speech.py      whether there is speech at all
    words.py       how its parts are written for people
    writers.py     JSON Lines, CSV and tables; what --resume skips
    plot.py        --plot
"""

from ..errors import AudioError, DetectionError, ModelError
from .detector import ALL_TRACKS, CHANNELS, DEMO_NOTICE, Detector, detect
from .recordings import Unreadable, list_recordings
from .results import SCHEMA_VERSION, Result, Stretch, WindowScore
from .words import clock

__all__ = [
    "ALL_TRACKS",
    "CHANNELS",
    "DEMO_NOTICE",
    "SCHEMA_VERSION",
    "AudioError",
    "DetectionError",
    "Detector",
    "ModelError",
    "Result",
    "Stretch",
    "Unreadable",
    "WindowScore",
    "clock",
    "detect",
    "list_recordings",
]
