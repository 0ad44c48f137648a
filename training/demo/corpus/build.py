"""Builds the corpus from packages: fetches, prepares, plans, makes each utterance, and writes the manifest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from . import activity, audio, channel, neural, recordings, sources, surroundings
from .errors import CorpusError
from .manifest import Entry, checksum, write_licences, write_manifest
from .packages import fetch_generators
from .plan import Utterance, make_plan, thin
from .synthesizers import VOICES
from .vocoders import VOCODERS

Item = TypeVar("Item")
Result = TypeVar("Result")


def build(
    out: Path, seed: int, workers: int, limit: int | None, allow_missing: bool, report: Callable[[str], None]
) -> list[Entry]:
    """
    Builds the corpus in `out` and returns its manifest.

    Args:
        out: folder of the corpus. `out/work` keeps packages, pieces, and the journal for resuming a build.
        seed: seed of the plan and of every utterance.
        workers: number of processes.
        limit: approximate number of utterances, for a quick look; None for all.
        allow_missing: go on without the attacks whose packages cannot be downloaded.
        report: called with a line about the progress.
    """
    packages, pieces_folder, journal = out / "work/packages", out / "work/pieces", out / "work/journal.jsonl"
    report("fetching the packages")
    sources.fetch(packages)
    lost = fetch_generators(out / "work/neural", allow_missing, report)
    index = out / "work/pieces.json"
    if not index.is_file():
        report("decoding and trimming the recordings")
        listed = list(sources.list_recordings(packages))
        prepare = partial(recordings.prepare, folder=pieces_folder)
        recordings.save_index(index, [piece for found in _parallel(prepare, listed, workers, out) for piece in found])
    plan = make_plan(list(recordings.load_index(index)), seed, without=lost)
    plan = thin(plan, limit) if limit else plan
    done = {row["utterance_id"]: row for row in _read_journal(journal)}
    todo = [utterance for utterance in plan if not _is_made(out, utterance, done)]
    report(f"{len(plan)} utterances planned, {len(plan) - len(todo)} already made")
    # Random order spreads out the slow generators, so the first progress lines show how long the build will take.
    todo = [todo[index] for index in np.random.default_rng(seed).permutation(len(todo))]
    with open(journal, "a", encoding="utf-8") as file:
        for number, row in enumerate(_parallel(partial(make, out, pieces_folder), todo, workers, out), start=1):
            done[row["utterance_id"]] = row
            file.write(json.dumps(row) + "\n")
            if number % 200 == 0:
                file.flush()
                report(f"{number} of {len(todo)} utterances made")
    entries = [_entry(utterance, done[utterance.utterance_id]) for utterance in plan]
    write_manifest(out / "manifest.csv", entries)
    write_licences(out / "LICENCES.md", packages)
    report("writing noises and room responses for augmentation")
    surroundings.write_noises(packages, out)
    surroundings.write_rooms(out, seed)
    return entries


def make(out: Path, pieces_folder: Path, utterance: Utterance) -> dict[str, Any]:
    """Makes the file of an utterance, and returns its journal line."""
    if utterance.attack:
        wave = _generated(pieces_folder, utterance)
    else:
        wave = recordings.join(pieces_folder, utterance.recordings, np.random.default_rng(utterance.seed))
    reference = recordings.join(pieces_folder, utterance.reference, np.random.default_rng([utterance.seed, 3]))
    wave = channel.send(
        wave, reference, utterance.codec, utterance.seconds, np.random.default_rng([utterance.seed, 4])
    )
    path = out / audio_path(utterance)
    audio.write(path, wave)
    return {
        "utterance_id": utterance.utterance_id,
        "fingerprint": utterance.fingerprint(),
        "duration": round(wave.size / audio.SAMPLE_RATE, 3),
        "sha256": checksum(path),
    }


def _generated(pieces_folder: Path, utterance: Utterance) -> np.ndarray:
    """Returns the output of the utterance's attack. It is cached, so a change of the channel can reuse it."""
    path = pieces_folder.parent / f"generated/{utterance.utterance_id}.{utterance.fingerprint():08x}.flac"
    if path.is_file():
        return audio.read(path)
    rng = np.random.default_rng(utterance.seed)
    if utterance.attack in VOICES:
        wave = VOICES[utterance.attack].synthesize(utterance.text, utterance.language, utterance.speaker_id, rng)
    else:
        # The channel keeps `seconds`, after it has shortened the pauses: more would be made for nothing.
        longest = round((utterance.seconds + 1.0) * audio.SAMPLE_RATE)
        wave = VOCODERS[utterance.attack](recordings.join(pieces_folder, utterance.recordings, rng)[:longest], rng)
    if not activity.active_frames(wave).any():
        raise CorpusError(f"{utterance.utterance_id}: {utterance.attack} made no speech.")
    # Recordings pass through the channel's codec once before the channel, so generated speech must too.
    codec = audio.mp3_round_trip if utterance.codec == channel.LOW_RATE else audio.g722_round_trip
    wave = codec(0.5 * wave / np.abs(wave).max())
    unfinished = path.with_suffix(".part")
    audio.write(unfinished, wave)
    unfinished.replace(path)
    return wave


def audio_path(utterance: Utterance) -> str:
    """Returns the utterance's path below the corpus folder."""
    return f"audio/{utterance.partition}/{utterance.utterance_id}.flac"


def _entry(utterance: Utterance, row: dict[str, Any]) -> Entry:
    return Entry(
        utterance.utterance_id, audio_path(utterance), utterance.label, utterance.speaker_id, utterance.gender,
        utterance.language, utterance.attack, utterance.codec, utterance.source, utterance.partition,
        f"{row['duration']:.3f}", row["sha256"], utterance.licence, utterance.style,
    )  # fmt: skip


def _is_made(out: Path, utterance: Utterance, done: dict[str, dict[str, Any]]) -> bool:
    row, path = done.get(utterance.utterance_id), out / audio_path(utterance)
    return (
        row is not None
        and row["fingerprint"] == utterance.fingerprint()
        and path.is_file()
        and checksum(path) == row["sha256"]
    )


def _read_journal(path: Path) -> Iterator[dict[str, Any]]:
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            # A stopped build may have left an incomplete line.
            if line.endswith("}"):
                yield json.loads(line)


def _parallel(function: Callable[[Item], Result], items: Iterable[Item], workers: int, out: Path) -> Iterator[Result]:
    """Applies `function` to `items` in processes with one thread each; yields results in order."""
    with ProcessPoolExecutor(workers, initializer=_start_worker, initargs=(out,)) as pool:
        yield from pool.map(function, items, chunksize=8)


def _start_worker(out: Path) -> None:
    # One thread also gives equal files on every machine, because BLAS rounds differently with more threads.
    threadpool_limits(1)
    torch.set_num_threads(1)
    neural.use(out / "work/neural")
