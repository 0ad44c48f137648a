"""Evaluates score files against keys with the benchmarks' own metrics. `nes2net evaluate` runs this."""

from ..errors import EvaluationError
from .asv import AsvScores, asv_of_table, read_asv_scores
from .figures import Evaluation, Trials, compare, evaluate, match, strangers, undecided
from .keys import Keys, keys_of_corpus, read_keys
from .report import Provenance, headline, provenance, to_json, write_report
from .score_files import ScoreFile, read_scores

__all__ = [
    "AsvScores",
    "Evaluation",
    "EvaluationError",
    "Keys",
    "Provenance",
    "ScoreFile",
    "Trials",
    "asv_of_table",
    "compare",
    "evaluate",
    "headline",
    "keys_of_corpus",
    "match",
    "provenance",
    "read_asv_scores",
    "read_keys",
    "read_scores",
    "strangers",
    "to_json",
    "undecided",
    "write_report",
]
