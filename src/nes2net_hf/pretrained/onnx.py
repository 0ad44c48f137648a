"""An exported Nes2Net, run by onnxruntime on the CPU: called, scored and configured as the torch models are."""

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

GRAPH = "model.onnx"  # weights too large for one file stand beside it, in model.onnx.data


class OnnxModel:
    """
    Args:
        folder: where `model.onnx` is. It runs in as many threads as torch does.
        config: of the model that was exported.

    Raises:
        ImportError: onnxruntime is not installed.
        RuntimeError: the file is no graph, or a part of it is missing.
    """

    def __init__(self, folder: Path, config: Nes2NetConfig) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors; what it remarks on is not the user's to fix
        with _as_runtime_error():
            self._session = onnxruntime.InferenceSession(folder / GRAPH, options, providers=["CPUExecutionProvider"])
        self.config = config

    def __call__(self, input_values: Tensor) -> SequenceClassifierOutput:
        """
        `input_values` (B, S) of one length → `logits` (B, C), or (B, T, C) of a model of frames, in float32.

        Raises:
            RuntimeError: onnxruntime cannot run the graph, as for want of memory.
        """
        with _as_runtime_error():
            [logits] = self._session.run(["logits"], {"input_values": input_values.numpy()})
        return SequenceClassifierOutput(logits=torch.from_numpy(logits))

    # Which ask for nothing but the configuration.
    score: Any = Nes2NetPreTrainedModel.score
    two_classes: Any = Nes2NetPreTrainedModel.two_classes


@contextmanager
def _as_runtime_error() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # onnxruntime's own have no other base
        raise RuntimeError(str(error)) from error


def holds_only_a_graph(folder: Path) -> bool:
    """Whether a folder holds an exported graph and no weights of PyTorch."""
    weights = [*folder.glob("*.safetensors"), *folder.glob("*.bin")]
    return (folder / GRAPH).is_file() and not weights
