"""
Scores each utterance of a corpus, on all processes. It judges as the benchmark does (the feature extractor decides how
much of each utterance is used), or as `nes2net detect` does. The scores are in the corpus's order. Needs the extra
`train`.
"""

from __future__ import annotations

import json
import shutil
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

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
from ..errors import CorpusError, OutputError, UsageError, option
from ..feature_extraction_nes2net import Nes2NetFeatureExtractor
from ..files import atomic_file, begin, check_suffix, claim, explained
from ..pretrained.fingerprint import fingerprint
from ..pretrained.load import ModelError, load_model
from ..scores import frames_within, judges_frames, of_file
from ..trainer.batches import Broken, BrokenDataError, in_order


@dataclass(frozen=True)
class Scored:
    """What one call of `score_corpus` did."""

    utterances: int
    """Rows of the corpus."""
    fresh: int
    """Rows that this call scored; earlier calls scored the others."""
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
    length: Literal["window", "whole"] | None = None,
    **options: Any,
) -> Scored:
    """
    Writes `out`: lines `utterance_id score` (the form of the ASVspoof challenges), or, if it ends in `.parquet`, a
    table that also has the `duration` in seconds and, for a model of frames, the `frame_scores`. Higher = bona fide;
    `config.score` says what a score is. A model of frames scores an utterance by its lowest frame.

    Scores are kept in `OUT.parts` until all are done. After a kill, the same call continues, with any number of
    processes; the batches do not depend on it.

    Args:
        model: folder, Hub id or official checkpoint.
        corpus, root, split, **options: see `load_corpus`.
        revision: revision of the model on the Hub.
        batch_size: utterances per batch.
        workers: reading processes per scoring process.
        dtype: dtype of the model: float32, bfloat16 or float16.
        all_windows: judge whole utterances, as `nes2net detect` does: by the mean of the windows with sound.
        length: `"window"` judges the first window of each utterance, `"whole"` all of it in one pass. Default: as the
            model's feature extractor says. A model of frames always judges whole utterances.

    Raises:
        UsageError: `all_windows` and `length` are both set.
        ModelError: the model cannot be loaded, or judges frames although windows are wanted.
        CorpusError: the corpus cannot be opened.
        OutputError, DiskError: `out` cannot be written, does not end in `.txt` or `.parquet`, or cannot hold an
            utterance's id (in text, an id is one line); or `OUT.parts` holds scores of other work.
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
        if all_windows and length is not None:
            raise UsageError(f"{option('all_windows')} and {option('length')} exclude each other: omit one of them.")
        if length is not None:
            extractor.length_policy = {"window": "first", "whole": "whole"}[length]
        if judges_frames(config):
            if all_windows or length == "window":
                raise ModelError(
                    f"model {model} judges frames, so it has no mean over windows: it cannot be calibrated, or judged "
                    f"with {option('all_windows')} or {option('length')} window."
                )
            extractor.length_policy = "whole"  # every frame, not only those of the first window
        columns = ("utterance_id", "audio", "label")
        rows = open_rows(corpus, split, root=root, columns_read=columns, **options)
        what: dict[str, Any] = {
            "model": model,
            "revision": revision,
            "dtype": dtype,
            "weights": weights,  # after dtype, which changes them: a message names the first difference
            "corpus": corpus,
            "root": str(root),
            "split": split,
            "rows": len(rows),
            "all_windows": all_windows,
            **({"length": length} if length else {}),
            **{key: value for key, value in options.items() if value},
        }
        parts = _Parts(out.with_name(out.name + ".parts"), accelerator.process_index)
        if accelerator.is_main_process:
            ids = _ids(rows, out)
            begin(parts.folder / "what.json", what)
        accelerator.wait_for_everyone()
        before = parts.read()
        accelerator.wait_for_everyone()  # nobody adds to the parts before all have read them

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
    """Scores this process's share of the batches into its part. Returns why utterances could not be read."""
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
    """Returns the ids of all utterances, after a check that the file can hold them."""
    ids = rows.utterances()
    for name in ids:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise OutputError(f"utterance {name!r} cannot be written to {out}: its id is not valid Unicode.") from None
        if out.suffix.lower() != ".parquet" and name.splitlines() != [name]:
            raise OutputError(
                f"utterance {name!r} cannot be written to {out}: its id is empty or has several lines; name an output "
                "that ends in .parquet."
            )
    return ids


def _batches(rows: TableRows | ShardedRows, batch_size: int, whole: bool) -> list[list[int]]:
    """Returns all rows in batches. Whole utterances are sorted by size, so that there is little padding."""
    sizes = rows.sizes() if whole else None
    order = np.arange(len(rows)) if sizes is None else np.argsort(sizes, kind="stable")
    return [order[start : start + batch_size].tolist() for start in range(0, len(order), batch_size)]


@dataclass(frozen=True)
class _Item:
    """An utterance in a batch: its row, its duration in seconds, and its number of windows in the batch."""

    row: int
    duration: float
    windows: int


@dataclass(frozen=True)
class _Scores:
    """The scores of one utterance."""

    score: float
    duration: float
    frames: list[float]


def _judge(network: Any, batch: dict[str, Any], batch_size: int) -> list[list[list[float]]]:
    """Returns, for each utterance and each of its windows, the scores: one, or one per frame."""
    judged: list[list[float]] = []
    for values, mask in zip(batch["input_values"].split(batch_size), batch["attention_mask"].split(batch_size)):
        logits = network(values.to(network.device), attention_mask=mask.to(network.device)).logits
        scores = network.score(logits)
        judged += scores.reshape(len(values), -1).tolist()
    windows = iter(judged)
    return [[next(windows) for _ in range(item.windows)] for item in batch["items"]]


def _line(config: Nes2NetConfig, item: _Item, windows: list[list[float]]) -> str:
    """Returns `row score duration frames`, without the frames of padding."""
    if not judges_frames(config):
        score, frames = of_file([one for [one] in windows], False), "-"
    else:
        own = windows[0][: frames_within(round(item.duration * SAMPLING_RATE), config)]
        score, frames = of_file(own, True), ",".join(f"{score:.6g}" for score in own)
    return f"{item.row} {score:.9g} {item.duration:.6g} {frames}\n"


class _Utterances(Dataset):
    """Items by row. `collate` makes a batch of those that can be read, and says why the others cannot."""

    def __init__(self, rows: TableRows | ShardedRows, extractor: Nes2NetFeatureExtractor, all_windows: bool) -> None:
        self.rows, self.extractor, self.all_windows = rows, extractor, all_windows

    def __getitem__(self, key: tuple[int, int]) -> Any:
        row = self.rows[key[1]]
        try:
            return key[1], read_utterance(row)
        except (AudioError, CorpusError) as error:
            return key[1], Broken(error)

    def collate(self, items: list[Any]) -> dict[str, Any]:
        """Returns the readable `items`, `input_values` and `attention_mask` (B, S) of their windows, and `broken`."""
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
    """Scores so far: one file per process and run, so that nobody appends to a line that a kill cut off."""

    def __init__(self, folder: Path, process: int) -> None:
        self.folder, self._process = folder, process

    def read(self) -> dict[int, _Scores]:
        """Returns row → scores, from whole lines only. Version 0.1.0 appended the raw id to each line."""
        scores = {}
        for path in sorted(self.folder.glob("*.txt")):
            for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
                with suppress(ValueError):  # the rest of an id after a line break
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
