"""
Thousands of damaged recordings in one run: each gets a verdict or an error message of ours, and none ends the run.

The seed is fixed. `NES2NET_FUZZ=3000 pytest -m slow tests/detection/test_fuzz.py -s` tests that many files and prints
the counts.
"""

from __future__ import annotations

import io
import os
import re
import resource
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nes2net_hf.audio import SAMPLING_RATE
from nes2net_hf.detection import Detector
from tests.recordings import PYAV_FORMATS, SOUNDFILE_FORMATS, encode

FILES = int(os.environ.get("NES2NET_FUZZ", "500"))
MEMORY = 256  # MiB that decoding may use, with any header
SPEECH = Path(__file__).parents[2] / "src/nes2net_hf/samples"
# Words that only a library would use.
FOREIGN = re.compile(
    r"\w+(Error|Exception|Warning)\b|Errno|Traceback|zip\(|codec can't|libsnd|ffmpeg|av\.|\bNone\b|0x[0-9a-f]{4}"
)


def seeds() -> list[bytes]:
    """Returns intact recordings of speech in every format that we can write here."""
    speech, _ = soundfile.read(SPEECH / "spoof.flac", dtype="float32")
    speech = speech[: 2 * SAMPLING_RATE]
    others = [
        ("RF64", "PCM_16"),
        ("W64", "FLOAT"),
        ("AIFF", "PCM_24"),
        ("CAF", "ALAC_16"),
        ("AU", "ULAW"),
        ("NIST", "PCM_16"),
    ]
    written = [encode(speech, SAMPLING_RATE, suffix) for suffix in (*SOUNDFILE_FORMATS, *PYAV_FORMATS)]
    for container, codec in others:
        buffer = io.BytesIO()
        soundfile.write(buffer, speech, SAMPLING_RATE, format=container, subtype=codec)
        written.append(buffer.getvalue())
    written.append(encode(np.stack([speech, speech[::-1]]), SAMPLING_RATE, "wav"))
    return written


def damaged(data: bytes, other: bytes, random: np.random.Generator) -> bytes:
    """Damages a file in one or two typical ways, mostly near the start, where headers are."""
    for _ in range(random.integers(1, 3)):
        size = max(len(data), 1)
        place = int(random.integers(size) if random.random() < 0.6 else random.integers(min(size, 200)))
        kind = random.integers(8)
        if kind == 0:
            data = data[:place]
        elif kind == 1:
            data = data[place:]
        elif kind == 2:
            data = data[:place] + random.bytes(int(random.integers(1, 9))) + data[place + 8 :]
        elif kind == 3:
            extreme = int(random.choice([0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF]))
            data = data[:place] + struct.pack(random.choice(["<I", ">I"]), extreme) + data[place + 4 :]
        elif kind == 4:
            data = data[:place] + bytes(int(random.integers(1, 3000))) + data[place:]
        elif kind == 5:
            data = data[:place] + data[place + int(random.integers(1, 3000)) :]
        elif kind == 6:
            data = data + other[int(random.integers(len(other))) :] if random.random() < 0.5 else data + other
        else:
            data = b"ID3\4\0\0" + bytes(random.integers(0, 128, 4).tolist()) + data
    return data


@pytest.mark.slow
def test_damaged_recordings_give_verdicts_or_our_sentences(
    tiny_model_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(20261127)
    whole = seeds()
    detector = Detector(tiny_model_dir, device="cpu", channels="each", track="all")
    paths = []
    for number in range(FILES):
        path = tmp_path / f"{number:05}"
        path.write_bytes(damaged(whole[number % len(whole)], whole[int(random.integers(len(whole)))], random))
        paths.append(str(path))
    list(detector.stream([str(SPEECH / "spoof.flac")]))  # so that everything that is loaded once is loaded
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    results = list(detector.stream(paths))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert {result.file for result in results} == set(paths)
    errors = [result.error.replace(result.file, "FILE") for result in results if result.error]
    foreign = [error for error in errors if FOREIGN.search(error) or not error.endswith(".") or "\n" in error]
    printed = capfd.readouterr()
    kinds = Counter(re.sub(r"-?\d[\d.]*(e[+-]\d+)?", "N", error) for error in errors)
    with capfd.disabled():
        print(
            f"\n{FILES} files, {len(results)} results: {len(results) - len(errors)} judged, {len(errors)} errors, "
            f"{len(foreign)} foreign reasons, 0 runs ended; {grown:.0f} MiB more"
        )
        for kind, count in kinds.most_common():
            print(f"{count:6}  {kind}")
    assert not foreign, foreign[:5]
    assert "Exception ignored" not in printed.err and "Traceback" not in printed.err, printed.err[-2000:]
    assert grown < MEMORY
