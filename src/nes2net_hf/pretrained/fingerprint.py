"""One hash of everything that raw scores depend on."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch

# Settings about a model's origin, or about decisions made from its raw scores. They do not affect raw scores.
_NOT_OF_SCORES = (
    "_name_or_path", "architectures", "auto_map", "averaged_from", "calibration", "demonstration", "dtype",
    "threshold", "transformers_version",
)  # fmt: skip


def fingerprint(network: Any, extractor: Any) -> str:
    """Returns a hash of all that raw scores depend on: weights, configuration, and how waveforms are prepared."""
    settings = network.config.to_dict(), extractor.to_dict()
    for setting in settings:
        for key in _NOT_OF_SCORES:
            setting.pop(key, None)
    digest = hashlib.blake2b(json.dumps(settings, sort_keys=True, default=str).encode(), digest_size=16)
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
