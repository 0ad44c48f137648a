"""One schema for every corpus: the same columns, null where a corpus has no value."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from datasets import Audio, ClassLabel, Features, List, Value

from ..audio import SAMPLING_RATE
from .labels import LABEL_NAMES

RESOLUTIONS_MS = (10, 20, 40, 80, 160, 320, 640)  # PartialSpoof's segment labels
TEXT_COLUMNS = (
    "speaker_id", "gender", "language", "attack", "vocoder", "codec", "codec_setting", "transmission", "trim",
    "source", "partition", "phase",
)  # fmt: skip
FEATURES = Features(
    {
        "utterance_id": Value("string"),
        "audio": Audio(sampling_rate=SAMPLING_RATE, decode=False),
        "label": ClassLabel(names=list(LABEL_NAMES)),
        **{column: Value("string") for column in TEXT_COLUMNS},
        "segment_labels": {f"{resolution}ms": List(Value("int8")) for resolution in RESOLUTIONS_MS},
    }
)


def to_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Converts rows to a table with pyarrow, because `datasets` needs torchcodec to encode audio, even a path."""
    return pa.Table.from_pylist(rows, schema=FEATURES.arrow_schema)


def make_row(utterance_id: str, label: str, **columns: Any) -> dict[str, Any]:
    """Makes a row without audio. Columns that are omitted, empty or `-` are null."""
    row: dict[str, Any] = dict.fromkeys(FEATURES)
    row["utterance_id"], row["label"] = utterance_id, LABEL_NAMES.index(label)
    for column, value in columns.items():
        if column not in TEXT_COLUMNS:
            raise TypeError(f"there is no column {column!r}")
        row[column] = None if value in (None, "", "-") else str(value)
    return row
