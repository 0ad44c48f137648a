"""
The dataset format of the Speech Anti-Spoofing Arena: four columns, one split `test`, and an `eval.yaml`.

Its package `speech-spoof-bench` 0.3 reads the format and checks it with `validate-dataset`. `path` is unique. `label`
is 0 for bona fide and 1 for spoof. `notes` is JSON with an `utterance_id` that is unique and has no white space,
because each line of the Arena's score files is `utterance_id score`. The dataset's author must add the rest: licence,
languages and arXiv number in the card, `LICENSE.txt`, `submissions/`, and mono audio at 16 kHz that lasts at least one
second in the first row.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

import yaml
from datasets import Audio, ClassLabel, Features, Value

from ...audio import AUDIO_SUFFIXES, SAMPLING_RATE
from ...errors import CorpusError
from ..corpus import Row
from ..labels import LABEL_NAMES
from ..schema import TEXT_COLUMNS

SPLIT = "test"
ARENA_LABEL_NAMES = ("bonafide", "spoof")  # the reverse of our order
# Audio is decoded on reading, as the Arena's runner expects.
ARENA_FEATURES = Features(
    {
        "path": Value("string"),
        "audio": Audio(sampling_rate=SAMPLING_RATE),
        "label": ClassLabel(names=list(ARENA_LABEL_NAMES)),
        "notes": Value("string"),
    }
)


def to_arena(row: Row) -> Row:
    """Converts a row of ours, with its audio as bytes and file name, to one of the Arena's."""
    suffix = os.path.splitext(row["audio"]["path"])[1]
    known = {name: row[name] for name in ("utterance_id", *TEXT_COLUMNS, "segment_labels") if row[name] is not None}
    return {
        "path": row["utterance_id"] + (suffix if suffix.lower() in AUDIO_SUFFIXES else ""),
        "audio": row["audio"],
        "label": ARENA_LABEL_NAMES.index(LABEL_NAMES[row["label"]]),
        "notes": json.dumps(known, ensure_ascii=False),
    }


def check_utterance_ids(utterance_ids: Iterable[str]) -> None:
    """
    Checks that ids suit the Arena.

    Raises:
        CorpusError: an id is empty, occurs twice, or contains white space.
    """
    seen: set[str] = set()
    for utterance in utterance_ids:
        if utterance in seen:
            raise CorpusError(f"utterance_id {utterance!r} occurs twice: the Arena needs a unique one in each row.")
        if utterance.split() != [utterance]:
            raise CorpusError(
                f"utterance_id {utterance!r} is empty or contains white space, which the Arena does not allow: set "
                "other ids in a column utterance_id."
            )
        seen.add(utterance)


def eval_yaml(name: str, title: str, labels: Mapping[str, int]) -> str:
    """Returns the YAML that tells the Arena to score the dataset of this name by EER."""
    bonafide, spoof = labels.get("bonafide", 0), labels.get("spoof", 0)
    task: dict[str, Any] = {
        "id": "antispoofing_eval",
        "config": "default",
        "split": SPLIT,
        "field_spec": {"input": "audio", "target": "label"},
        "solvers": [{"name": "speech_spoof_bench_solver"}],
        "scorers": [{"name": "speech_spoof_scorer"}],
        "metrics": ["eer_percent"],
    }
    content = {
        "name": name,
        "description": f"{title}: {bonafide + spoof:,} utterances, {bonafide:,} bona fide and {spoof:,} spoof.",
        "evaluation_framework": "inspect-ai",
        "tasks": [task],
    }
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
