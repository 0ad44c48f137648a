"""
Export: encoder, back-end and classifier as one ONNX graph, which is held against PyTorch before it is kept.

The graph reads `input_values` (batch, samples), waveforms of one length as the feature extractor prepares them, and
gives `logits` (batch, C) of the C labels, of a model of frames (batch, frames, C). In shapes: B batch, S samples.
"""

from __future__ import annotations

import copy
import logging
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
from .load import load_model
from .onnx import GRAPH, OnnxModel, holds_only_a_graph

OPSET = 20  # the first that has GELU as one operator
TOLERANCE = 1e-4
SPEECH = [BONAFIDE, SPOOF]
# Weights beyond it stand in a file of their own: so they are never held in memory twice to be written as one message,
# which could not be above 2 GB.
ONE_FILE = 500_000_000


@dataclass
class Exported:
    """What was written, and how far its scores and logits are from PyTorch's."""

    folder: Path
    opset: int
    size: int
    """Bytes of the graph with its weights."""
    difference: float
    """Of the graph in float32, which is made for int8 too."""
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
    Exports a model of utterances or of frames to a folder with `model.onnx`, configuration and feature extractor.

    Args:
        model: Hub id or folder.
        out: the folder to write.
        int8: store linear layers in 8 bits and compute them so. The scale of their inputs is taken from each batch, so
            that a window's score moves a little with the windows it is judged with.
        revision: branch, tag or commit on the Hub.
        force: replace `out` where an earlier export wrote it.
        report: is told, line by line, what was made and measured.

    Raises:
        ModelError: the model cannot be loaded.
        OutputError, DiskError: `out` exists or cannot be written.
        ExportError: it cannot be exported, or the graph's scores are not PyTorch's; then nothing is written.
    """
    target = Path(out)
    _check_target(target, force)
    with atomic_folder(target) as fresh:
        network: Any
        network, extractor = load_model(model, revision, torch.device("cpu"), "float32")
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
                    f"onnxruntime's scores of {model} are up to {exported.difference:.1e} from PyTorch's, more than "
                    f"{TOLERANCE:.0e}, and nothing was written: judge with --backend torch."
                )
            lengths = ", ".join(f"{batch.shape[1]:,}" for batch in inputs)
            report(f"checked   on speech of {lengths} samples, alone and in batches of {len(SPEECH)}:")
            report(f"          scores and logits of onnxruntime at most {exported.difference:.1e} from PyTorch's")
            if int8:
                _quantise(folder, fresh)
                exported.size = _size(fresh)
                exported.int8_difference = _largest_difference(network, fresh, inputs)
                report(
                    f"int8      linear layers, {exported.size / 1e6:.1f} MB; scores and logits on the same speech at "
                    f"most {exported.int8_difference:.1e} from PyTorch's"
                )
        network.config.save_pretrained(fresh)
        extractor.save_pretrained(fresh)
    report(f"written   {out}")
    return exported


def _check_target(out: Path, force: bool) -> None:
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file: name a folder to write.")
    if out.is_dir() and any(out.iterdir()):
        if not force:
            raise OutputError(f"{out} exists: choose another folder, or replace it with --force.")
        if not holds_only_a_graph(out):
            raise OutputError(f"{out} holds no earlier export alone: --force replaces nothing else.")
    if not out.absolute().parent.is_dir():
        raise OutputError(f"{out.parent} does not exist: make the folder first.")


class _Graph(nn.Module):
    """A model's logits, and nothing else of its output."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_values: Tensor) -> Tensor:
        return self.network(input_values, return_dict=True).logits


def _write_graph(network: Any, samples: int, folder: Path) -> int:
    """Writes the graph, traced at so many samples but for any number of them, and returns its opset."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    with _without_remarks():
        try:
            program: Any = torch.onnx.export(
                _Graph(network).eval(),
                (torch.zeros(2, samples),),
                dynamo=True,  # the older exporter gives graphs whose numbers are wrong, without a word
                opset_version=OPSET,
                input_names=["input_values"],
                output_names=["logits"],
                dynamic_shapes={"input_values": {0: "batch", 1: "samples"}},
                verbose=False,
            )
        except Exception as error:  # not torch's own alone: the packages that it calls raise theirs
            raise ExportError(
                f"torch {torch.__version__} cannot export a model with a {network.config.encoder_config.model_type} "
                f"encoder: judge with --backend torch ({_first_line(error)})."
            ) from None
        # Where each node comes from: paths of this machine, and a third of a small model's size.
        ClearMetadataAndDocStringPass()(program.model)
        # The weights say these themselves, and the quantiser of onnxruntime 1.23 stumbles over them.
        for value in program.model.graph.initializers.values():
            value.shape = value.type = None
        weights = sum(parameter.nbytes for parameter in network.parameters())
        program.save(folder / GRAPH, external_data=weights > ONE_FILE)
    return program.model.opset_imports[""]


def _quantise(source: Path, out: Path) -> None:
    """The linear layers' weights in int8; convolutions and the classifier (a Gemm, no MatMul) stay in float32."""
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
                reduce_range=True,  # 7 bits: sums of products of 8 saturate on processors without VNNI
                weight_type=QuantType.QInt8,
                use_external_data_format=_size(source) > 4 * ONE_FILE,
            )
        except OSError:
            raise
        except Exception as error:
            raise ExportError(f"onnxruntime cannot quantise the graph ({_first_line(error)}).") from None


def _speech(config: Nes2NetConfig, extractor: Any) -> Iterator[Tensor]:
    """Bona fide and spoofed speech (2, S) of five lengths: the shortest, odd ones, a window and beyond two."""
    shortest, window = max(config.min_samples, extractor.min_samples), extractor.window_length
    any_length = copy.copy(extractor)
    any_length.length_policy = "whole"
    waveforms = [read_audio(path) for path in SPEECH]
    for length in (shortest, shortest + 8_001, shortest + 30_000, window, 2 * window + 1):
        cuts = [np.resize(waveform[len(waveform) // 2 :], length) for waveform in waveforms]
        yield any_length(cuts, sampling_rate=SAMPLING_RATE, return_tensors="pt")["input_values"]


def _largest_difference(network: Any, folder: Path, inputs: list[Tensor]) -> float:
    """Of scores and logits, PyTorch's from onnxruntime's, over each batch and each of its rows alone."""
    differences = []
    try:
        graph = OnnxModel(folder, network.config)
        with torch.inference_mode():
            for rows in (rows for batch in inputs for rows in (batch, *batch.split(1))):
                expected, actual = network(input_values=rows).logits, graph(rows).logits
                differences.append((actual - expected).abs().max())
                differences.append((graph.score(actual) - network.score(expected)).abs().max())
    except RuntimeError as error:
        raise ExportError(f"onnxruntime cannot run the exported graph ({_first_line(error)}).") from None
    return float(torch.stack(differences).max())  # of one that is no number, no number


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob(f"{GRAPH}*"))


def _first_line(error: BaseException) -> str:
    """What a chain of exceptions began with, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    line = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {line[:200]}".rstrip(".: ")


@contextmanager
def _without_remarks() -> Iterator[None]:
    """The exporter and the quantiser remark on what they pass over; what stops them is raised all the same."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
