"""
Detection: recordings in, verdicts out. What `nes2net detect` and `nes2net_hf.detect` run.

    detector.py    the model, and how windows become a verdict
    results.py     what a verdict holds
    recordings.py  one recording on its way to its verdict: its windows, warnings and errors
    batches.py     windows of many recordings judged together, decoded in a thread
    speech.py      whether there is speech at all
"""

from ..errors import DetectionError
from .detector import ALL_TRACKS, CHANNELS, DEMO_NOTICE, Detector, detect
from .recordings import Unreadable, list_recordings
from .results import SCHEMA_VERSION, Result, Stretch, WindowScore, clock

__all__ = [
    "ALL_TRACKS",
    "CHANNELS",
    "DEMO_NOTICE",
    "SCHEMA_VERSION",
    "DetectionError",
    "Detector",
    "Result",
    "Stretch",
    "Unreadable",
    "WindowScore",
    "clock",
    "detect",
    "list_recordings",
]
