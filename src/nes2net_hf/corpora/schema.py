"""One schema for every corpus: the same columns, null where a corpus does not say."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from datasets import Audio, ClassLabel, Features, List, Value

from ..audio import SAMPLING_RATE
from .labels import LABEL_NAMES

RESOLUTIONS_MS = (10, 20, 40, 80, 160, 320, 640)  # of PartialSpoof's segment labels
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
    """Rows as a table of the schema. By way of pyarrow, for `datasets` encodes audio, even a path, with torchcodec."""
    return pa.Table.from_pylist(rows, schema=FEATURES.arrow_schema)


def make_row(utterance_id: str, label: str, **columns: Any) -> dict[str, Any]:
    """A row without its audio; columns that are not given, `-` and empty ones are null."""
    row: dict[str, Any] = dict.fromkeys(FEATURES)
    row["utterance_id"], row["label"] = utterance_id, LABEL_NAMES.index(label)
    for column, value in columns.items():
        if column not in TEXT_COLUMNS:
            raise TypeError(f"there is no column {column!r}")
        row[column] = None if value in (None, "", "-") else str(value)
    return row
