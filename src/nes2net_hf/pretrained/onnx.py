"""Runs an exported Nes2Net with onnxruntime on the CPU, with the interface of the torch models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import SequenceClassifierOutput

from ..configuration_nes2net import Nes2NetConfig
from ..modeling_nes2net import Nes2NetPreTrainedModel

GRAPH = "model.onnx"  # weights too large for one file are in model.onnx.data


class OnnxModel:
    """
    An exported model.

    Args:
        folder: the folder of `model.onnx`. It uses as many threads as torch.
        config: configuration of the exported model.

    Raises:
        ImportError: onnxruntime is not installed.
        RuntimeError: the file is not a graph, or a part of it is missing.
    """

    def __init__(self, folder: Path, config: Nes2NetConfig) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors only: the user cannot fix what its warnings are about
        with _as_runtime_error():
            self._session = onnxruntime.InferenceSession(folder / GRAPH, options, providers=["CPUExecutionProvider"])
        self.config = config

    def __call__(self, input_values: Tensor) -> SequenceClassifierOutput:
        """
        Returns float32 `logits` (B, C), or (B, T, C) for a frame model, for `input_values` (B, S) of equal length.

        Raises:
            RuntimeError: onnxruntime cannot run the graph, e.g. because it is out of memory.
        """
        with _as_runtime_error():
            [logits] = self._session.run(["logits"], {"input_values": input_values.numpy()})
        return SequenceClassifierOutput(logits=torch.from_numpy(logits))

    # These need only the configuration.
    score: Any = Nes2NetPreTrainedModel.score
    two_classes: Any = Nes2NetPreTrainedModel.two_classes


@contextmanager
def _as_runtime_error() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # onnxruntime's own errors have no narrower base
        raise RuntimeError(str(error)) from error


def holds_only_a_graph(folder: Path) -> bool:
    """Returns whether a folder has an exported graph but no PyTorch weights."""
    weights = [*folder.glob("*.safetensors"), *folder.glob("*.bin")]
    return (folder / GRAPH).is_file() and not weights
