"""
Speed of each precision against transformers' bare encoder, and how far it moves scores, in one run.

    python tests/benchmarks/precision.py [--model FOLDER] [--threads 2] [--rounds 5] [--batch-sizes 1 8] [--wavlm]

Without --model, it builds a random XLS-R 300M (or, with --wavlm, a random WavLM Large). Timings alternate between the
bare encoder, transformers' own code in float32, and the whole model in each precision. A ratio above 1 means faster
than the bare encoder, or than float32 if the encoder reads features. Scores are compared on the 24 recordings in
tests/fixtures/audio, repeated or cut to 4.04 s.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nes2net_hf import Nes2NetConfig, Nes2NetFeatureExtractor, Nes2NetForAudioClassification
from nes2net_hf.audio import read_audio
from nes2net_hf.configuration_nes2net import XLSR_300M
from nes2net_hf.pretrained.fast import undo
from nes2net_hf.pretrained.load import load_model
from nes2net_hf.pretrained.precision import DTYPES, processor, speeds

RECORDINGS = sorted((Path(__file__).parents[1] / "fixtures" / "audio").glob("*.flac"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a model; default: a random one")
    parser.add_argument("--wavlm", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--dtypes", nargs="+", default=list(DTYPES), choices=DTYPES)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{processor()}; torch {torch.__version__}, {options.threads} threads; linear layers: {speeds()}")
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or build(Path(folder), options.wavlm)
        loaded = {dtype: load_model(model, None, torch.device("cpu"), dtype) for dtype in options.dtypes}
    extractor = loaded["float32"][1]
    waves = np.stack([np.resize(read_audio(path), extractor.window_length) for path in RECORDINGS])
    inputs = extractor(list(waves), sampling_rate=16_000, return_tensors="pt")["input_values"]
    networks: dict[str, Any] = {dtype: network for dtype, (network, _) in loaded.items()}
    first: dict[str, Any] = {"bare encoder": own_code(networks["float32"].base_model.encoder)}
    if networks["float32"].base_model.encoder.main_input_name != "input_values":
        first = {}  # it reads features: float32 is compared with
    with torch.inference_mode():
        print(f"\n{'windows':>7} {'':14} {'median s':>9} {'times as fast':>14}")
        for size in options.batch_sizes:
            taken = alternate({**first, **networks}, inputs[:size], options.rounds)
            for name, seconds in taken.items():
                print(f"{size:>7} {name:14} {seconds:>9.3f} {next(iter(taken.values())) / seconds:>14.2f}", flush=True)
        print(f"\n{'scores of':>14} {'moved by at most':>17} {'mean':>9}   on {len(inputs)} recordings")
        expected = scores(networks["float32"], inputs)
        for dtype, network in networks.items():
            moved = (scores(network, inputs) - expected).abs()
            print(f"{dtype:>14} {moved.max():>17.1e} {moved.mean():>9.1e}", flush=True)


def build(folder: Path, wavlm: bool) -> Path:
    torch.manual_seed(0)
    encoder = {**XLSR_300M, "model_type": "wavlm", "conv_bias": False} if wavlm else XLSR_300M
    Nes2NetForAudioClassification(Nes2NetConfig(encoder_config=encoder)).save_pretrained(folder)
    Nes2NetFeatureExtractor().save_pretrained(folder)
    return folder


def own_code(encoder: torch.nn.Module) -> torch.nn.Module:
    """The encoder as transformers runs it, with the same weights in memory."""
    shared = {id(tensor): tensor for tensor in (*encoder.parameters(), *encoder.buffers())}
    return undo(copy.deepcopy(encoder, shared))


def alternate(networks: dict[str, Any], batch: torch.Tensor, rounds: int) -> dict[str, float]:
    """Median seconds of each, turn by turn, after one turn that does not count."""
    times: dict[str, list[float]] = {name: [] for name in networks}
    for turn in range(rounds + 1):
        for name, network in networks.items():
            start = time.perf_counter()
            network(batch)
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in times.items()}


def scores(network: Any, inputs: torch.Tensor) -> torch.Tensor:
    return torch.cat([network.score(network(rows).logits) for rows in inputs.split(8)])


if __name__ == "__main__":
    main()
