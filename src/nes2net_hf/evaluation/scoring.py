"""
Scoring a corpus on all processes, utterance by utterance: as the benchmark does (the model's feature extractor says
how much of each), or as `nes2net detect` does. `utterance_id score` for every row, in the corpus's order. Needs the
extra `train`.
"""

from __future__ import annotations

import json
import shutil
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate import Accelerator
from accelerate.utils import tqdm
from torch.utils.data import Dataset

from ..audio import SAMPLING_RATE, AudioError, holds_sound, iter_windows
from ..configuration_nes2net import Nes2NetConfig
from ..corpora.loading import TableRows, open_rows
from ..corpora.shards.read import ShardedRows
from ..corpora.utterances import read_utterance
from ..errors import CorpusError, OutputError
from ..feature_extraction_nes2net import Nes2NetFeatureExtractor
from ..files import atomic_file, begin, check_suffix, claim, explained
from ..pretrained.fingerprint import fingerprint
from ..pretrained.load import ModelError, load_model
from ..scores import frames_within, judges_frames, of_file
from ..trainer.batches import Broken, BrokenDataError, in_order


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
    all_windows: bool = False,
    **options: Any,
) -> Scored:
    """
    Writes `out`: lines `utterance_id score` (the form of the ASVspoof challenges), or, if it ends in `.parquet`, a
    table of these, the `duration` in seconds, and of a model of frames their `frame_scores`. Higher = bona fide; what
    a score is `config.score` says. A model of frames scores an utterance by its lowest frame.

    What is scored is kept beside, in `OUT.parts`, until everything is: the same call continues after a kill, in any
    number of processes. Batches are the same in any number of them.

    Args:
        model: Hub id or folder.
        corpus, root, split, **options: as of `load_corpus`.
        revision: of the model, on the Hub.
        batch_size: utterances of a pass.
        workers: processes that read, for each process that scores.
        dtype: of the model: float32, bfloat16 or float16.
        all_windows: judge the whole of each utterance, as `nes2net detect` does: the mean of its windows that hold
            sound.

    Raises:
        ModelError: the model cannot be loaded, or judges frames and is asked for all windows.
        CorpusError: the corpus cannot be opened.
        OutputError, DiskError: `out` cannot be written, has another suffix than `.txt` and `.parquet`, or cannot hold
            an utterance's id (in text, an id is one line); or `OUT.parts` holds scores of other work.
        BrokenDataError: utterances cannot be read; all others are scored and kept.
    """
    check_suffix(out, ".txt", ".parquet")
    accelerator = Accelerator()
    if accelerator.is_main_process:
        with explained(out):
            out.absolute().parent.mkdir(parents=True, exist_ok=True)
    with claim(out) if accelerator.is_main_process else nullcontext():
        network, extractor = load_model(model, revision, accelerator.device, dtype)
        weights, config = fingerprint(network, extractor), cast(Nes2NetConfig, network.config)
        if judges_frames(config):
            if all_windows:
                raise ModelError(f"model {model} judges frames: it scores whole utterances without all_windows.")
            extractor.length_policy = "whole"  # every frame, not only those of the first window
        columns = ("utterance_id", "audio", "label")
        rows = open_rows(corpus, split, root=root, columns_read=columns, **options)
        what: dict[str, Any] = {
            "model": model,
            "revision": revision,
            "dtype": dtype,
            "weights": weights,  # after dtype, which changes them
            "corpus": corpus,
            "root": str(root),
            "split": split,
            "rows": len(rows),
            "all_windows": all_windows,
            **{key: value for key, value in options.items() if value},
        }
        parts = _Parts(out.with_name(out.name + ".parts"), accelerator.process_index)
        if accelerator.is_main_process:
            ids = _ids(rows, out)
            begin(parts.folder / "what.json", what)
        accelerator.wait_for_everyone()
        before = parts.read()
        accelerator.wait_for_everyone()  # before anyone adds to the parts

        started = time.monotonic()
        batches = _batches(rows, batch_size, extractor.length_policy == "whole")
        todo = [batch for batch in batches if not before.keys() >= set(batch)]
        share = todo[accelerator.process_index :: accelerator.num_processes]
        broken = _score(network, _Utterances(rows, extractor, all_windows), share, parts, batch_size, workers)
        accelerator.wait_for_everyone()
        scores = parts.read()
        accelerator.wait_for_everyone()  # before the main process removes the parts
        if len(scores) < len(rows):
            named = "; ".join(reason.rstrip(".") for reason in broken[:3]) or "the other processes name them"
            raise BrokenDataError(
                f"{len(rows) - len(scores)} of {len(rows)} utterances could not be read ({named}): fix them and run "
                f"the same command again; the other scores are kept in {parts.folder}."
            )
        if accelerator.is_main_process:
            _write(out, ids, [scores[row] for row in range(len(rows))], judges_frames(config), what)
            parts.remove()
        accelerator.wait_for_everyone()
        return Scored(len(rows), len(rows) - len(before), time.monotonic() - started)


def _score(
    network: Any, utterances: _Utterances, share: list[list[int]], parts: _Parts, batch_size: int, workers: int
) -> list[str]:
    """Scores this process's share of the batches into its part; returns why utterances could not be read."""
    broken: list[str] = []
    with explained(parts.folder), parts.open() as file, torch.inference_mode():
        loaded = in_order(utterances, share, utterances.collate, workers)
        for batch in tqdm(loaded, total=len(share), unit="batch"):
            if batch["items"]:
                scores = _judge(network, batch, batch_size)
                file.writelines(_line(network.config, *pair) for pair in zip(batch["items"], scores, strict=True))
                file.flush()
            broken += batch["broken"]
    return broken


def _ids(rows: TableRows | ShardedRows, out: Path) -> list[str]:
    """Of all utterances, and all of them such as the file can hold."""
    ids = rows.utterances()
    for name in ids:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise OutputError(f"utterance {name!r} cannot be written to {out}: its id is not valid Unicode.") from None
        if out.suffix.lower() != ".parquet" and name.splitlines() != [name]:
            raise OutputError(
                f"utterance {name!r} cannot be written to {out}: its id is more than a line of text, or none; name an "
                "output that ends in .parquet."
            )
    return ids


def _batches(rows: TableRows | ShardedRows, batch_size: int, whole: bool) -> list[list[int]]:
    """All rows, in batches of neighbours; whole utterances beside those of like size, so that little is padding."""
    sizes = rows.sizes() if whole else None
    order = np.arange(len(rows)) if sizes is None else np.argsort(sizes, kind="stable")
    return [order[start : start + batch_size].tolist() for start in range(0, len(order), batch_size)]


@dataclass(frozen=True)
class _Item:
    """An utterance in a batch: its row, its seconds, and how many windows of the batch are its own."""

    row: int
    duration: float
    windows: int


@dataclass(frozen=True)
class _Scores:
    """Of one utterance."""

    score: float
    duration: float
    frames: list[float]


def _judge(network: Any, batch: dict[str, Any], batch_size: int) -> list[list[list[float]]]:
    """Of each utterance of a batch, of each of its windows the scores: one, or one of each frame."""
    judged: list[list[float]] = []
    for values, mask in zip(batch["input_values"].split(batch_size), batch["attention_mask"].split(batch_size)):
        logits = network(values.to(network.device), attention_mask=mask.to(network.device)).logits
        scores = network.score(logits)
        judged += scores.reshape(len(values), -1).tolist()
    windows = iter(judged)
    return [[next(windows) for _ in range(item.windows)] for item in batch["items"]]


def _line(config: Nes2NetConfig, item: _Item, windows: list[list[float]]) -> str:
    """`row score duration frames`; frames of the utterance's own sound, not of what it was filled up with."""
    if not judges_frames(config):
        score, frames = of_file([one for [one] in windows], False), "-"
    else:
        own = windows[0][: frames_within(round(item.duration * SAMPLING_RATE), config)]
        score, frames = of_file(own, True), ",".join(f"{score:.6g}" for score in own)
    return f"{item.row} {score:.9g} {item.duration:.6g} {frames}\n"


class _Utterances(Dataset):
    """Items of rows; `collate` makes a batch of those that can be read, and says why the others cannot."""

    def __init__(self, rows: TableRows | ShardedRows, extractor: Nes2NetFeatureExtractor, all_windows: bool) -> None:
        self.rows, self.extractor, self.all_windows = rows, extractor, all_windows

    def __getitem__(self, key: tuple[int, int]) -> Any:
        row = self.rows[key[1]]
        try:
            return key[1], read_utterance(row)
        except (AudioError, CorpusError) as error:
            return key[1], Broken(error)

    def collate(self, items: list[Any]) -> dict[str, Any]:
        """`items` that could be read, `input_values` (B, S) and `attention_mask` (B, S) of their windows; `broken`."""
        batch: dict[str, Any] = {"items": [], "broken": []}
        windows: list[np.ndarray] = []
        for row, waveform in items:
            if isinstance(waveform, Broken):
                batch["broken"].append(str(waveform))
            else:
                its_windows = self._windows(waveform)
                batch["items"].append(_Item(row, waveform.size / SAMPLING_RATE, len(its_windows)))
                windows += its_windows
        if windows:
            rate = self.extractor.sampling_rate
            batch |= self.extractor(windows, sampling_rate=rate, return_tensors="pt", return_attention_mask=True)
        return batch

    def _windows(self, waveform: np.ndarray) -> list[np.ndarray]:
        if not self.all_windows:
            return [waveform]
        cut = [block[0] for _, block in iter_windows([waveform[None]], self.extractor.window_length)]
        return [window for window in cut if holds_sound(window)] or cut


class _Parts:
    """Scores so far: a file for each process of each run, so that nobody writes into a line that a kill cut in two."""

    def __init__(self, folder: Path, process: int) -> None:
        self.folder, self._process = folder, process

    def read(self) -> dict[int, _Scores]:
        """Row → its scores; of whole lines only. In those of version 0.1.0 the utterance's id follows, as it is."""
        scores = {}
        for path in sorted(self.folder.glob("*.txt")):
            for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
                with suppress(ValueError):  # what follows a line break in an id
                    row, score, duration, frames = line.split(" ")[:4]
                    its_frames = [] if frames == "-" else [float(frame) for frame in frames.split(",")]
                    scores[int(row)] = _Scores(float(score), float(duration), its_frames)
        return scores

    def open(self) -> Any:
        number = len(list(self.folder.glob(f"{self._process:04}-*.txt")))
        return open(self.folder / f"{self._process:04}-{number:04}.txt", "w", encoding="utf-8")

    def remove(self) -> None:
        shutil.rmtree(self.folder)


def _write(out: Path, ids: list[str], scores: list[_Scores], of_frames: bool, what: dict[str, Any]) -> None:
    with atomic_file(out, "wb") as file:
        if out.suffix.lower() == ".parquet":
            columns: dict[str, list[Any]] = {
                "utterance_id": ids,
                "score": [one.score for one in scores],
                "duration": [one.duration for one in scores],
            }
            if of_frames:
                columns["frame_scores"] = [one.frames for one in scores]
            pq.write_table(pa.table(columns).replace_schema_metadata({"scored": json.dumps(what)}), file)
        else:
            file.write("".join(f"{name} {one.score:.9g}\n" for name, one in zip(ids, scores, strict=True)).encode())
