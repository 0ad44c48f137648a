"""
How early a live verdict is right, and how late it comes.

    python tests/benchmarks/live.py MODEL --root demo-corpus/manifest.csv --where partition=test

First, recordings of a speaker (and for spoofed speech, an attack) are joined to streams of at least ten seconds. Each
is judged as if it were live: EER by seconds heard, and what the running verdict is at the end. Then one recording is
played in real time: time to the first verdict, delay behind the sound, and the share of a processor core. Without
--root, only the second part runs, with the bundled recording.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from nes2net_hf import Detector
from nes2net_hf.audio import SAMPLING_RATE, read_audio
from nes2net_hf.corpora.loading import open_rows
from nes2net_hf.corpora.utterances import read_utterance
from nes2net_hf.detection import LiveDetector
from nes2net_hf.metrics import equal_error_rate
from nes2net_hf.samples import SPOOF

HEARD = (1, 2, 3, 4, 8)  # s, and at most half a second more
LENGTH = 10  # s of a stream


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="default: the bundled demonstration model")
    parser.add_argument("--corpus", default="own-data")
    parser.add_argument("--root")
    parser.add_argument("--where", default="partition=test")
    parser.add_argument("--streams", type=int, default=1, help="at most so many of each speaker and attack")
    parser.add_argument("--errors", type=float, nargs=2, default=(0.05, 0.05))
    parser.add_argument("--chunk", type=float, default=0.1, help="seconds that arrive at once")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    detector = Detector(options.model, device="cpu", channels="mix")
    if options.root:
        _by_seconds(detector, options)
    _in_real_time(detector, options.chunk)


def _streams(options: Any) -> Iterator[tuple[int, np.ndarray]]:
    """Yields label and waveform (S,) of each stream."""
    column, _, value = options.where.partition("=")
    place: dict[str, Any] = {"root": options.root, "where": {column: [value]}}
    columns = ("utterance_id", "speaker_id", "attack")
    names = open_rows(options.corpus, None, columns_read=columns, **place)
    rows = open_rows(options.corpus, None, columns_read=("utterance_id", "audio"), **place)
    held: dict[Any, list[np.ndarray]] = defaultdict(list)
    made: Counter[Any] = Counter()
    for row in range(len(names)):
        key = int(names.labels[row]), names[row]["speaker_id"], names[row]["attack"]
        if made[key] >= options.streams:
            continue
        held[key].append(read_utterance(rows[row]))
        if sum(map(len, held[key])) >= LENGTH * SAMPLING_RATE:
            made[key] += 1
            yield key[0], np.concatenate(held.pop(key))


def _by_seconds(detector: Detector, options: Any) -> None:
    heard: dict[float, dict[int, list[float]]] = {seconds: {0: [], 1: []} for seconds in HEARD}
    states: dict[int, Counter[str]] = {0: Counter(), 1: Counter()}
    times: list[float] = []
    for label, waveform in _streams(options):
        with LiveDetector(detector, SAMPLING_RATE, errors=tuple(options.errors)) as live:
            assert live.test is not None, "the model is not calibrated"
            decided, evidence = None, dict[float, float]()
            for start in range(0, len(waveform), SAMPLING_RATE // 10):
                for verdict in live.push(waveform[start : start + SAMPLING_RATE // 10]):
                    if live.test.evidence is not None:
                        evidence[verdict.time] = live.test.evidence
                    if decided is None and verdict.state != "undecided":
                        decided = verdict.time
        times += [] if decided is None else [decided]
        states[label][live.test.state] += 1
        for seconds in HEARD:
            until = [value for at, value in evidence.items() if at <= seconds + 0.5]
            if until:
                heard[seconds][label].append(until[-1])
    print("seconds heard  bona fide  spoofed   EER")
    for seconds, (spoof, bonafide) in ((seconds, heard[seconds].values()) for seconds in HEARD):
        eer = f"{equal_error_rate(np.array(bonafide), np.array(spoof)).eer:.1%}" if spoof and bonafide else ""
        print(f"{seconds:13}  {len(bonafide):9}  {len(spoof):7}  {eer:>5}")
    for label, name in ((1, "bona fide"), (0, "spoofed")):
        total = states[label].total()
        shares = ", ".join(f"{state} {count / total:.1%}" for state, count in states[label].most_common())
        print(f"running verdict at the end, {name}: {shares}")
    if times:
        print(f"median time of the decisions: {np.median(times):.1f} s")


def _in_real_time(detector: Detector, chunk: float) -> None:
    waveform = np.tile(read_audio(SPOOF), 4)
    length = round(chunk * SAMPLING_RATE)
    with LiveDetector(detector, SAMPLING_RATE, skip=True) as live:
        began, used = time.monotonic(), _processor_seconds()
        first, delays, skipped = None, [], 0
        for start in range(0, len(waveform), length):
            arrives = (start + length) / SAMPLING_RATE
            time.sleep(max(0.0, began + arrives - time.monotonic()))
            for verdict in live.push(waveform[start : start + length]):
                now = time.monotonic() - began
                first = now if first is None else first
                delays.append(now - verdict.time)
                skipped += verdict.skipped
        took, used = time.monotonic() - began, _processor_seconds() - used
        live.finish()
        after = time.monotonic() - began - took
    print(
        f"in real time: first verdict after {first:.2f} s; behind the sound by {np.median(delays):.2f} s (median), "
        f"{np.quantile(delays, 0.95):.2f} s (95 %); {len(delays)} verdicts, {skipped} skipped; "
        f"{used / took:.0%} of a core; the whole {after:.2f} s after the end"
    )


def _processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
