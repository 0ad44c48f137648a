"""Loads benchmark corpora, your own data and audio datasets of `datasets` in one schema. Needs the extra `train`."""

from ..errors import CorpusError
from .check import PartitionCheck, check_corpus
from .loading import load_corpus
from .overlaps import Part, check_apart, overlap_warning, shared_sources
from .registry import CORPORA, NAMES
from .schema import FEATURES, RESOLUTIONS_MS

__all__ = [
    "CORPORA",
    "FEATURES",
    "NAMES",
    "RESOLUTIONS_MS",
    "CorpusError",
    "Part",
    "PartitionCheck",
    "check_apart",
    "check_corpus",
    "load_corpus",
    "overlap_warning",
    "shared_sources",
]
