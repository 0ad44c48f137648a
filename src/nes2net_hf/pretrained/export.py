"""
Exports encoder, back-end and classifier as one ONNX graph. The graph is kept only if it agrees with PyTorch.

The graph takes `input_values` (batch, samples), waveforms of equal length from the feature extractor. It returns
`logits` (batch, C) for the C labels, or (batch, frames, C) for a frame model. In shapes: B batch, S samples.
"""

from __future__ import annotations

import copy
import logging
import math
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..audio import SAMPLING_RATE, read_audio
from ..configuration_nes2net import Nes2NetConfig
from ..errors import ExportError, OutputError
from ..files import atomic_folder
from ..samples import BONAFIDE, SPOOF
from ..scores import judges_frames
from . import fast
from .familiarity import copy_familiarity
from .load import load_model
from .onnx import GRAPH, NOTE, GraphConfig, OnnxModel, holds_only_a_graph

OPSET = 20  # the first with GELU as a single operator
TOLERANCE = 1e-4
SPEECH = [BONAFIDE, SPOOF]
# Larger weights are written to a separate file: one protobuf message cannot exceed 2 GB, and building it would hold
# the weights in memory twice.
ONE_FILE = 500_000_000


@dataclass
class Exported:
    """The result of an export, and how much its scores and logits differ from PyTorch's."""

    folder: Path
    opset: int
    size: int
    """Size of the graph with its weights, in bytes."""
    difference: float
    """Largest difference of the float32 graph, which an int8 export also makes."""
    int8_difference: float | None = None


def export(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    int8: bool = False,
    revision: str | None = None,
    force: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> Exported:
    """
    Exports an utterance or frame model to a folder with `model.onnx`, the configuration and the feature extractor.

    Args:
        model: folder, Hub id or official checkpoint.
        out: the folder to write.
        int8: store and compute linear layers in 8 bits. The scale of their inputs is computed per batch, so a window's
            score depends slightly on the other windows in its batch.
        revision: branch, tag or commit on the Hub.
        force: replace `out` if it holds an earlier export.
        report: called with each line about what was made and measured.

    Raises:
        ModelError: the model cannot be loaded.
        OutputError, DiskError: `out` exists or cannot be written.
        ExportError: the model cannot be exported, or the graph's scores differ from PyTorch's. Nothing is written.
    """
    target = Path(out)
    _check_target(target, force)
    with atomic_folder(target) as fresh:
        network: Any
        network, extractor = load_model(model, revision, torch.device("cpu"), "float32")
        fast.undo(network)
        with tempfile.TemporaryDirectory(dir=fresh) as whole:
            folder = Path(whole) if int8 else fresh
            opset = _write_graph(network, extractor.window_length, folder)
            inputs = list(_speech(network.config, extractor))
            axes = "batch, frames" if judges_frames(network.config) else "batch"
            classes = network.config.num_labels
            report(f"graph     {GRAPH}: input_values (batch, samples) → logits ({axes}, {classes})")
            report(f"float32   opset {opset}, {_size(folder) / 1e6:.1f} MB")
            exported = Exported(target, opset, _size(folder), _largest_difference(network, folder, inputs))
            if not exported.difference <= TOLERANCE:
                raise ExportError(
                    f"onnxruntime's scores of {model} differ from PyTorch's by up to {exported.difference:.1e}, more "
                    f"than {TOLERANCE:.0e}, so nothing was written: use --backend torch."
                )
            lengths = ", ".join(f"{batch.shape[1]:,}" for batch in inputs)
            report(f"checked   on speech of {lengths} samples, alone and in batches of {len(SPEECH)}:")
            report(f"          scores and logits of onnxruntime are within {exported.difference:.1e} of PyTorch's")
            if int8:
                _quantise(folder, fresh)
                exported.size = _size(fresh)
                exported.int8_difference = _largest_difference(network, fresh, inputs)
                report(
                    f"int8      linear layers, {exported.size / 1e6:.1f} MB; scores and logits on the same speech are "
                    f"within {exported.int8_difference:.1e} of PyTorch's"
                )
        network.config.save_pretrained(fresh)
        extractor.save_pretrained(fresh)
        copy_familiarity(model, revision, network.config, fresh)
    report(f"written   {out}")
    return exported


def _check_target(out: Path, force: bool) -> None:
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file: name a folder to write.")
    if out.is_dir() and any(out.iterdir()):
        if not force:
            raise OutputError(f"{out} exists: choose another folder, or replace it with --force.")
        if not holds_only_a_graph(out):
            raise OutputError(
                f"{out} has files that are not from an export, so --force does not replace it: choose another folder."
            )
    if not out.absolute().parent.is_dir():
        raise OutputError(f"{out.parent} does not exist: create the folder first.")


class _Graph(nn.Module):
    """Returns only a model's logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_values: Tensor) -> Tensor:
        return self.network(input_values, return_dict=True).logits


def _write_graph(network: Any, samples: int, folder: Path) -> int:
    """Writes the graph, traced with `samples` samples but valid for any number, and returns its opset."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    if network.config.encoder_config.model_type == "wav2vec2-bert":
        network.set_attn_implementation("eager")  # torch cannot trace its fused attention, which has a bias
    with _without_remarks():
        try:
            program: Any = torch.onnx.export(
                _Graph(network).eval(),
                (torch.zeros(2, samples),),
                dynamo=True,  # the older exporter silently writes graphs that compute wrong numbers
                opset_version=OPSET,
                input_names=["input_values"],
                output_names=["logits"],
                dynamic_shapes={"input_values": {0: "batch", 1: "samples"}},
                verbose=False,
            )
        except Exception as error:  # the packages that torch calls raise their own
            raise ExportError(
                f"torch {torch.__version__} cannot export a model with a {network.config.encoder_config.model_type} "
                f"encoder ({_first_line(error)}): use --backend torch."
            ) from None
        # Drops the origin of each node: it names local paths, and is a third of a small model's size.
        ClearMetadataAndDocStringPass()(program.model)
        # The weights already have shapes and types, and onnxruntime 1.23's quantiser fails on these duplicates.
        for value in program.model.graph.initializers.values():
            value.shape = value.type = None
        program.model.metadata_props[NOTE] = GraphConfig.of(network.config).to_json()
        weights = sum(parameter.nbytes for parameter in network.parameters())
        program.save(folder / GRAPH, external_data=weights > ONE_FILE)
    return program.model.opset_imports[""]


def _quantise(source: Path, out: Path) -> None:
    """Quantises linear layers to int8. Convolutions and the classifier (a Gemm, not a MatMul) stay in float32."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    nodes = onnx.load(source / GRAPH, load_external_data=False).graph.node
    with _without_remarks():
        try:
            quantize_dynamic(
                source / GRAPH,
                out / GRAPH,
                op_types_to_quantize=["MatMul"],
                nodes_to_quantize=[node.name for node in nodes if node.op_type == "MatMul"],
                per_channel=True,
                reduce_range=True,  # 7 bits: with 8, sums of products saturate on processors without VNNI
                weight_type=QuantType.QInt8,
                use_external_data_format=_size(source) > 4 * ONE_FILE,
            )
        except OSError:
            raise
        except Exception as error:
            raise ExportError(f"onnxruntime cannot quantise the graph ({_first_line(error)}).") from None


def _speech(config: Nes2NetConfig, extractor: Any) -> Iterator[Tensor]:
    """
    Yields bona fide and spoofed speech (2, S) of five lengths, from the shortest to more than two windows, or as long
    as the encoder reads.
    """
    shortest, window = max(config.min_samples, extractor.min_samples), extractor.window_length
    any_length = copy.copy(extractor)
    any_length.length_policy = "whole"
    waveforms = [read_audio(path) for path in SPEECH]
    longest = min(2 * window + 1, config.max_samples or math.inf)
    for length in (shortest, shortest + 8_001, shortest + 30_000, window, int(longest)):
        cuts = [np.resize(waveform[len(waveform) // 2 :], length) for waveform in waveforms]
        yield any_length(cuts, sampling_rate=SAMPLING_RATE, return_tensors="pt")["input_values"]


def _largest_difference(network: Any, folder: Path, inputs: list[Tensor]) -> float:
    """Returns the largest difference of scores and logits from PyTorch's, over batches and their single rows."""
    differences = []
    try:
        graph = OnnxModel(folder)
        with torch.inference_mode():
            for rows in (rows for batch in inputs for rows in (batch, *batch.split(1))):
                expected, actual = network(input_values=rows).logits, torch.from_numpy(graph.logits(rows.numpy()))
                differences.append((actual - expected).abs().max())
                differences.append((network.score(actual) - network.score(expected)).abs().max())
    except RuntimeError as error:
        raise ExportError(f"onnxruntime cannot run the exported graph ({_first_line(error)}).") from None
    return float(torch.stack(differences).max())  # NaN if any difference is NaN


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob(f"{GRAPH}*"))


def _first_line(error: BaseException) -> str:
    """Returns the root cause of an exception on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    line = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {line[:200]}".rstrip(".: ")


@contextmanager
def _without_remarks() -> Iterator[None]:
    """Silences the exporter's and quantiser's warnings about what they skip. Errors are still raised."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
