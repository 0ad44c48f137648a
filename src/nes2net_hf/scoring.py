"""
Scoring a corpus on all processes, utterance by utterance as the benchmark does (the model's feature extractor says how
much of each): `utterance_id score` for every row, in the corpus's order. Needs the extra `train`.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate import Accelerator
from accelerate.utils import tqdm
from torch.utils.data import Dataset

from .audio import AudioError
from .corpora.errors import CorpusError
from .corpora.loading import TableRows, open_rows
from .corpora.shards import ShardedRows
from .corpora.utterances import read_utterance
from .feature_extraction_nes2net import Nes2NetFeatureExtractor
from .loading import load_model
from .training.batches import Broken, BrokenDataError, in_order


@dataclass(frozen=True)
class Scored:
    """What a call of `score_corpus` did."""

    utterances: int
    """Rows of the corpus."""
    fresh: int
    """Those that this call scored; the others had been before."""
    seconds: float


def score_corpus(
    model: str,
    out: Path,
    *,
    corpus: str,
    root: str,
    split: str | None = None,
    revision: str | None = None,
    batch_size: int = 16,
    workers: int = 0,
    dtype: str = "float32",
    **options: Any,
) -> Scored:
    """
    Writes `out`: lines `utterance_id score` (the form of the ASVspoof challenges), or Parquet with these columns if it
    ends in `.parquet`. Higher = bona fide; what a score is `config.score` says.

    What is scored is kept beside, in `OUT.parts`, until everything is: the same call goes on after a kill, in any
    number of processes. Batches are the same in any number of them.

    Args:
        model: Hub id or folder.
        corpus, root, split, **options: as of `load_corpus`.
        revision: of the model, on the Hub.
        batch_size: utterances of a pass.
        workers: processes that read, for each process that scores.
        dtype: of the model: float32, bfloat16 or float16.

    Raises:
        ModelError: the model cannot be loaded.
        CorpusError: the corpus cannot be opened, or `OUT.parts` holds scores of something else.
        BrokenDataError: utterances cannot be read; all others are scored and kept.
    """
    accelerator = Accelerator()
    network, extractor = load_model(model, revision, accelerator.device, dtype)
    columns = ("utterance_id", "audio", "label")
    rows = open_rows(corpus, split, root=root, columns_read=columns, **options)
    parts = _Parts(out.with_name(out.name + ".parts"), accelerator.process_index)
    what = {"model": model, "revision": revision, "corpus": corpus, "split": split, "dtype": dtype, "rows": len(rows)}
    if accelerator.is_main_process:
        parts.begin({**what, **{key: value for key, value in options.items() if value}})
    accelerator.wait_for_everyone()
    done = parts.read()
    accelerator.wait_for_everyone()  # before anyone adds to the parts

    started = time.monotonic()
    utterances = _Utterances(rows, extractor)
    whole = extractor.length_policy == "whole"
    batches = [batch for batch in _batches(rows, batch_size, whole) if not done.keys() >= set(batch)]
    share = batches[accelerator.process_index :: accelerator.num_processes]
    broken: list[str] = []
    with parts.open() as file, torch.inference_mode():
        loaded = in_order(utterances, share, utterances.collate, workers)
        for batch in tqdm(loaded, total=len(share), unit="batch"):
            if batch["rows"]:
                inputs = {key: batch[key].to(accelerator.device) for key in ("input_values", "attention_mask")}
                scores = network.score(network(**inputs).logits).tolist()
                lines = [f"{row} {score:.9g} {name}\n" for (row, name), score in zip(batch["rows"], scores)]
                file.write("".join(lines))
                file.flush()
            broken += batch["broken"]
    accelerator.wait_for_everyone()
    done_now = parts.read()
    if len(done_now) < len(rows):
        named = "; ".join(reason.rstrip(".") for reason in broken[:3]) or "as the other processes say"
        raise BrokenDataError(
            f"{len(rows) - len(done_now)} of {len(rows)} utterances could not be read ({named}): mend them and run "
            f"the same command again; the others are scored, in {parts.folder}."
        )
    if accelerator.is_main_process:
        _write(out, [done_now[row] for row in range(len(rows))])
        parts.remove()
    accelerator.wait_for_everyone()
    return Scored(len(rows), len(rows) - len(done), time.monotonic() - started)


def _batches(rows: TableRows | ShardedRows, batch_size: int, whole: bool) -> list[list[int]]:
    """All rows, in batches of neighbours; whole utterances beside those of like size, so that little is padding."""
    sizes = rows.sizes() if whole else None
    order = np.arange(len(rows)) if sizes is None else np.argsort(sizes, kind="stable")
    return [order[start : start + batch_size].tolist() for start in range(0, len(order), batch_size)]


class _Utterances(Dataset):
    """Items of rows; `collate` makes a batch of those that can be read, and says why the others cannot."""

    def __init__(self, rows: TableRows | ShardedRows, extractor: Nes2NetFeatureExtractor) -> None:
        self.rows, self.extractor = rows, extractor

    def __getitem__(self, key: tuple[int, int]) -> Any:
        row = self.rows[key[1]]
        try:
            return key[1], row["utterance_id"], read_utterance(row)
        except (AudioError, CorpusError) as error:
            return key[1], row["utterance_id"], Broken(error)

    def collate(self, items: list[Any]) -> dict[str, Any]:
        """`rows` (number, id) and `input_values` (B, S), `attention_mask` (B, S) of what could be read; `broken`."""
        whole = [item for item in items if not isinstance(item[2], Broken)]
        batch: dict[str, Any] = {"rows": [item[:2] for item in whole]}
        batch["broken"] = [str(item[2]) for item in items if isinstance(item[2], Broken)]
        if whole:
            rate = self.extractor.sampling_rate
            batch |= self.extractor([item[2] for item in whole], sampling_rate=rate, return_tensors="pt")
        return batch


class _Parts:
    """Scores so far: a file for each process of each run, so that nobody writes into a line that a kill cut in two."""

    def __init__(self, folder: Path, process: int) -> None:
        self.folder, self._process = folder, process

    def begin(self, what: dict[str, Any]) -> None:
        """Makes the folder, or sees that it is of the same work."""
        self.folder.mkdir(parents=True, exist_ok=True)
        label = self.folder / "what.json"
        text = json.dumps(what, indent=1)
        if label.exists() and label.read_text(encoding="utf-8") != text:
            raise CorpusError(
                f"{self.folder} holds scores of another model or corpus: remove it, or name another out."
            )
        label.write_text(text, encoding="utf-8")

    def read(self) -> dict[int, tuple[str, float]]:
        """Row → its utterance and score; of whole lines only."""
        scores = {}
        for path in sorted(self.folder.glob("*.txt")):
            for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
                if line.endswith("\n"):
                    row, score, name = line.rstrip("\n").split(" ", 2)
                    scores[int(row)] = name, float(score)
        return scores

    def open(self) -> Any:
        number = len(list(self.folder.glob(f"{self._process:04}-*.txt")))
        return open(self.folder / f"{self._process:04}-{number:04}.txt", "w", encoding="utf-8")

    def remove(self) -> None:
        shutil.rmtree(self.folder)


def _write(out: Path, scores: list[tuple[str, float]]) -> None:
    fresh = out.with_name(out.name + ".new")
    if out.suffix == ".parquet":
        names, values = zip(*scores)
        pq.write_table(pa.table({"utterance_id": names, "score": values}), fresh)
    else:
        fresh.write_text("".join(_lines(scores)), encoding="utf-8")
    fresh.replace(out)


def _lines(scores: list[tuple[str, float]]) -> Iterator[str]:
    for name, score in scores:
        yield f"{name} {score:.9g}\n"
