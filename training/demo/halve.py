"""
Store a model's matrices in half precision, so that the package that bundles it stays small.

    python training/demo/halve.py runs/demo/best

Only the file is smaller: the model still loads, and computes, in float32. Its scores change slightly, so calibrate it
afterwards.
"""

import argparse
import sys
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from nes2net_hf.errors import Nes2NetError
from nes2net_hf.files import atomic_file


def halve(weights: Path) -> None:
    """
    Rewrites a safetensors file with float16 in place of float32 in all tensors but vectors.

    Raises:
        ValueError: a weight is too large for float16.
    """
    tensors = load_file(weights)
    for name, tensor in tensors.items():
        if tensor.ndim > 1:
            tensors[name] = tensor.half().contiguous()
            if not tensors[name].isfinite().all():
                raise ValueError(f"{name} in {weights} has values that float16 cannot hold.")
    with atomic_file(weights, "wb") as file:
        file.write(save(tensors, metadata={"format": "pt"}))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a folder with model.safetensors")
    weights = parser.parse_args().model / "model.safetensors"
    try:
        halve(weights)
    except SafetensorError as error:
        print(f"halve: {weights} is damaged ({error}): copy it again.", file=sys.stderr)
        return 1
    except (Nes2NetError, OSError, ValueError) as error:
        print(f"halve: {error}", file=sys.stderr)
        return 1
    print(f"{weights}: {weights.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
