"""
How fast `nes2net detect` is against the bare encoder of transformers.

    python tests/benchmarks/detect.py --seconds 60 --threads 2 [--dtype int8]

Builds a random model of XLS-R 300M's size in a temporary folder, writes speech to files, and judges them with
`Detector.stream` and, in turn, runs transformers' own encoder in float32 over the very same windows in the same
batches. Prints the audio-seconds per second of both, and the peak memory. `precision.py` measures how far scores move.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import torch

from nes2net_hf import Nes2NetConfig, Nes2NetFeatureExtractor, Nes2NetForAudioClassification
from nes2net_hf.audio import SAMPLING_RATE, iter_windows, open_audio
from nes2net_hf.configuration_nes2net import XLSR_300M
from nes2net_hf.detection import Detector
from nes2net_hf.pretrained.fast import undo
from nes2net_hf.pretrained.load import load_model
from nes2net_hf.pretrained.precision import DTYPES

FIXTURES = Path(__file__).parents[1] / "fixtures" / "audio"
FILE_SECONDS = 20.0


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        model, files = Path(folder) / "model", _write_speech(Path(folder), arguments.seconds)
        _write_model(model, arguments.layers)
        _speed(model, files, arguments)
    scale = 2**20 if sys.platform == "darwin" else 2**10
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale:.0f} MiB")


def _speed(model: Path, files: list[Path], arguments: argparse.Namespace) -> None:
    detector = Detector(model, device=arguments.device, batch_size=arguments.batch_size, dtype=arguments.dtype)
    encoder = undo(load_model(model, None, detector.device, "float32")[0].nes2net.encoder)
    windows = [window[0] for file in files for _, window in _windows(file, detector.window_length)]
    batches = [
        torch.from_numpy(np.stack(windows[start : start + arguments.batch_size])).to(detector.device)
        for start in range(0, len(windows), arguments.batch_size)
    ]

    @torch.inference_mode()
    def bare() -> None:
        for batch in batches:
            # One number a batch, so that a GPU has really come to its end.
            encoder(batch).last_hidden_state.mean().item()

    def whole() -> None:
        judged = sum(len(result.windows) for result in detector.stream(files))
        assert judged == len(windows), "both must see the same windows"

    _seconds(bare), _seconds(whole)  # the first calls warm up
    times: dict[str, list[tuple[float, float]]] = {"bare": [], "whole": []}
    for repetition in range(arguments.repetitions):  # alternated, each first in turn, so that drift hits both alike
        for name in ("bare", "whole") if repetition % 2 else ("whole", "bare"):
            times[name].append(_seconds(bare if name == "bare" else whole))
    audio = len(windows) * detector.window_length / SAMPLING_RATE
    print(f"{len(files)} files, {len(windows)} windows, {audio:.0f} s of audio on {detector.device}, {arguments}")
    for clock, index in (("wall", 0), ("CPU", 1)):
        bare_s, whole_s = (statistics.median(pair[index] for pair in times[name]) for name in ("bare", "whole"))
        print(
            f"{clock:<4} time, median: bare encoder {audio / bare_s:.2f}, nes2net detect {audio / whole_s:.2f} "
            f"audio-seconds/s, {bare_s / whole_s:.2f} times as fast"
        )


def _write_model(folder: Path, layers: int) -> None:
    torch.manual_seed(0)
    encoder = {**XLSR_300M, "num_hidden_layers": layers}
    Nes2NetForAudioClassification(Nes2NetConfig(encoder_config=encoder, dilation=2)).save_pretrained(folder)
    Nes2NetFeatureExtractor().save_pretrained(folder)


def _write_speech(folder: Path, seconds: float) -> list[Path]:
    """FLAC files of 20 s: the suite's recordings one after another, over and over; noise where they are not there."""
    recordings = [soundfile.read(path, dtype="float32")[0] for path in sorted(FIXTURES.glob("*.flac"))]
    speech = np.concatenate(recordings or [0.1 * np.random.default_rng(0).standard_normal(320_000, np.float32)])
    speech = np.resize(speech, round(seconds * SAMPLING_RATE))
    files = []
    for index, part in enumerate(np.split(speech, range(int(FILE_SECONDS * SAMPLING_RATE), len(speech), 320_000))):
        files.append(folder / f"{index:04}.flac")
        soundfile.write(files[-1], part, SAMPLING_RATE)
    return files


def _windows(file: Path, length: int) -> list[tuple[int, np.ndarray]]:
    with open_audio(file) as audio:
        return list(iter_windows(audio.blocks(), length))


def _seconds(run: Callable[[], None]) -> tuple[float, float]:
    """Wall and CPU seconds; the latter, all threads together, stand still while other programs have the cores."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=40, help="of audio")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--device", default=None)
    parser.add_argument("--dtype", default="float32", choices=DTYPES, help="of the detector")
    parser.add_argument("--layers", type=int, default=24, help="of the encoder; fewer for a quick look")
    return parser.parse_args()


if __name__ == "__main__":
    main()
