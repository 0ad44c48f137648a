"""Loads benchmark corpora, your own data and audio datasets of `datasets` in one schema. Needs the extra `train`."""

from ..errors import CorpusError
from .check import PartitionCheck, check_corpus
from .loading import CORPORA, NAMES, load_corpus
from .schema import FEATURES, RESOLUTIONS_MS

__all__ = [
    "CORPORA",
    "FEATURES",
    "NAMES",
    "RESOLUTIONS_MS",
    "CorpusError",
    "PartitionCheck",
    "check_corpus",
    "load_corpus",
]
