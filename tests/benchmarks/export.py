"""
Speed, size, memory and scores of exported graphs, float32 and int8, against PyTorch, in one run.

    python tests/benchmarks/export.py --threads 2 [--xlsr]
    python -m tests.benchmarks.export --threads 2 --grid

Exports the bundled demonstration model, or with --xlsr a random model of XLS-R 300M's size (4 GB of memory, 4 GB of
disk), and runs the three over the same windows of speech, turn by turn, so that noise of the machine meets all alike;
a ratio above 1 means faster than PyTorch. Memory is the peak of a process of its own that loads the model and judges
one batch (Linux only), the libraries included.

With --grid, instead, tiny random models of all variants, aggregations and poolings over two encoders, with the largest
difference between both scores over the lengths and batches of tests/pretrained/test_export.py, and how far the scores
spread.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from nes2net_cli.console import be_quiet
from nes2net_hf import Nes2NetConfig, Nes2NetFeatureExtractor, Nes2NetForAudioClassification
from nes2net_hf.audio import SAMPLING_RATE, read_audio
from nes2net_hf.configuration_nes2net import XLSR_300M
from nes2net_hf.detection import Detector
from nes2net_hf.pretrained.export import export
from nes2net_hf.pretrained.load import DEMO_MODEL
from nes2net_hf.pretrained.onnx import GRAPH
from nes2net_hf.scores import of_logits

FIXTURES = Path(__file__).parents[1] / "fixtures" / "audio"


def main() -> None:
    arguments = _arguments()
    be_quiet()
    torch.set_num_threads(arguments.threads)
    if arguments.grid:
        _export_grid()
        return
    with tempfile.TemporaryDirectory() as place:
        model = _write_xlsr(Path(place) / "xlsr", arguments.layers) if arguments.xlsr else DEMO_MODEL
        for precision in ("float32", "int8"):
            started = time.perf_counter()
            export(model, Path(place) / precision, int8=precision == "int8", report=print)
            print(f"exported in {time.perf_counter() - started:.0f} s\n")
        compared = {
            "PyTorch": (model, "torch"),
            "onnxruntime float32": (Path(place) / "float32", "onnx"),
            "onnxruntime int8": (Path(place) / "int8", "onnx"),
        }
        _compare(compared, arguments)


def _export_grid() -> None:
    from tests.helpers import saved, tiny_model
    from tests.pretrained.test_export import SETTINGS, differences

    speech = [read_audio(path) for path in sorted(FIXTURES.glob("*.flac"))]
    for variant, aggregation, pooling, encoder in product(*SETTINGS):
        fields = {"backend_variant": variant, "layer_aggregation": aggregation, "pooling": pooling}
        with tempfile.TemporaryDirectory() as place:
            model = saved(tiny_model(encoder, **fields), Path(place) / "model")
            export(model, Path(place) / "out")
            difference, spread = differences(model, Path(place) / "out", speech)
        print(f"{encoder:8} {variant:9} {aggregation:18} {pooling:20} {difference:.1e} {spread:.1e}", flush=True)


def _compare(compared: dict[str, tuple[Path, str]], arguments: argparse.Namespace) -> None:
    detectors = {name: Detector(folder, device="cpu", backend=backend) for name, (folder, backend) in compared.items()}
    windows = _windows(detectors["PyTorch"].extractor, arguments.windows)
    scores = {
        name: torch.cat([_score(detector, row) for row in windows.split(1)]) for name, detector in detectors.items()
    }
    print(
        f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}, {arguments.threads} threads, "
        f"{len(windows)} windows of {windows.shape[1] / SAMPLING_RATE:.2f} s; PyTorch's scores "
        f"{scores['PyTorch'].min():.2f} to {scores['PyTorch'].max():.2f}"
    )
    times = {batch: _seconds(detectors, windows, batch, arguments.rounds) for batch in (1, 8)}
    heads = " ".join(f"{f'ms x {batch}':>8} {'ratio':>6}" for batch in times)
    print(f"{'':20} {'MB':>8} {'peak MiB':>9} {heads}   scores moved: max, mean")
    for name, (folder, backend) in compared.items():
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors" if backend == "torch" else f"{GRAPH}*"))
        moved = (scores[name] - scores["PyTorch"]).abs()
        columns = [f"{size / 1e6:>8.1f} {_peak(folder, backend, windows[:8], arguments.threads):>9.0f}"]
        for by_name in times.values():
            columns.append(f"{1000 * by_name[name]:>8.1f} {by_name['PyTorch'] / by_name[name]:>6.2f}")
        print(f"{name:20} {' '.join(columns)} {moved.max():>16.1e}, {moved.mean():.1e}", flush=True)


def _score(detector: Detector, rows: Tensor) -> Tensor:
    return torch.from_numpy(of_logits(detector._logits(rows.numpy()), detector.model.config)[0])


def _seconds(detectors: dict[str, Detector], windows: Tensor, batch: int, rounds: int) -> dict[str, float]:
    """Median seconds of each for one batch, each first in turn."""
    times: dict[str, list[float]] = {name: [] for name in detectors}
    names = list(detectors)
    for turn in range(rounds + 1):
        for name in names[turn % 3 :] + names[: turn % 3]:
            rows = windows[torch.arange(turn, turn + batch) % len(windows)]
            started = time.perf_counter()
            _score(detectors[name], rows)
            if turn:  # the first warms up
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(taken) for name, taken in times.items()}


def _peak(folder: Path, backend: str, rows: Tensor, threads: int) -> float:
    """MiB at the peak of a fresh process that loads and judges."""
    context = multiprocessing.get_context("spawn")
    answer = context.SimpleQueue()
    process = context.Process(target=_judge, args=(folder, backend, rows.numpy(), threads, answer))
    process.start()
    process.join()
    return answer.get()


def _judge(folder: Path, backend: str, rows: np.ndarray, threads: int, answer: Any) -> None:
    be_quiet()
    torch.set_num_threads(threads)
    _score(Detector(folder, device="cpu", backend=backend), torch.from_numpy(rows))
    # Of /proc, for the peak that getrusage gives is the parent's at first.
    answer.put(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024)


def _windows(extractor: Nes2NetFeatureExtractor, count: int) -> Tensor:
    """(count, S) of the suite's recordings, as detection cuts them."""
    speech = np.concatenate([read_audio(path) for path in sorted(FIXTURES.glob("*.flac"))])
    length = extractor.window_length
    cuts = list(np.resize(speech, count * length).reshape(count, length))
    return extractor(cuts, sampling_rate=SAMPLING_RATE, return_tensors="pt")["input_values"]


def _write_xlsr(folder: Path, layers: int) -> Path:
    torch.manual_seed(0)
    encoder = {**XLSR_300M, "num_hidden_layers": layers}
    Nes2NetForAudioClassification(Nes2NetConfig(encoder_config=encoder, dilation=2)).save_pretrained(folder)
    Nes2NetFeatureExtractor().save_pretrained(folder)
    return folder


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--xlsr", action="store_true", help="a random XLS-R 300M in place of the demonstration model")
    parser.add_argument("--grid", action="store_true", help="the scores of every variant, and no times")
    parser.add_argument("--layers", type=int, default=24, help="of its encoder; fewer for a quick look")
    parser.add_argument("--windows", type=int, default=24, help="of speech; two minutes are there")
    parser.add_argument("--rounds", type=int, default=15, help="timings of each, whose median is taken")
    return parser.parse_args()


if __name__ == "__main__":
    main()
