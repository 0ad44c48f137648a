"""
Time and memory of the published recipes at full size, random weights; and what kept features save.

    python tests/benchmarks/recipes.py --utterances 2 --steps 3

For each recipe one process trains some steps, of a few utterances (the recipe's batch in passes, as `passes` makes
them), with its full encoder, and prints utterances per second, peak memory, and from them the hours of an epoch and of
all epochs on this machine. With a GPU it takes the recipe's whole batch and bf16.
"""

import argparse
import multiprocessing
import resource
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
RECIPES = {  # training utterances as published; CtrSVDD's are not at hand
    "asvspoof2021": 25_380,
    "asvspoof5": 182_357,
    "ctrsvdd_nes2net_x": None,
    "partialspoof_frames": 25_380,
}


def measure(name: str, checkpointing: bool, frozen: bool, utterances: int, steps: int) -> None:
    import torch

    from nes2net_hf.conversion.systems import read_encoder_config
    from nes2net_hf.trainer import load_recipe
    from nes2net_hf.trainer.losses import build_loss
    from nes2net_hf.trainer.model import build_model
    from nes2net_hf.trainer.optimisation import build_optimiser

    path = ROOT / "training" / "configs" / f"{name}.yaml"
    recipe = load_recipe(path, ["data.augmentation=[]"])  # noises and rooms need not be there
    full_size = read_encoder_config("wavlm-large" if "wavlm" in str(recipe.model.pretrained) else "xlsr-300m")
    recipe.model.encoder = {**full_size, **recipe.model.encoder}
    recipe.model.pretrained, recipe.model.gradient_checkpointing = None, checkpointing
    recipe.model.freeze = "encoder" if frozen else recipe.model.freeze
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    count = recipe.batch_size if device.type == "cuda" else utterances
    model = build_model(recipe).to(device).train()
    optimiser, loss = build_optimiser(model, recipe), build_loss(recipe)
    inputs = 0.05 * torch.randn(count, recipe.data.window_length, device=device)
    batch = {"input_values": inputs}
    if frozen:
        with torch.inference_mode():
            _, states, _, _ = model.base_model.encode(inputs)
        batch = {"encoder_hidden_states": torch.stack([state.clone() for state in states], dim=1).clone()}
    shape = (count, 201) if recipe.model.head == "frames" else (count,)
    labels = torch.arange(torch.Size(shape).numel(), device=device).reshape(shape) % 2

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = model(**batch).logits
        if recipe.model.head == "frames":
            logits = logits[:, :201]
        (loss(logits.float(), labels[:, : logits.shape[1]] if labels.dim() > 1 else labels) / count).backward()
        optimiser.step()
        optimiser.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()

    step()
    started = time.perf_counter()
    for _ in range(steps):
        step()
    rate = steps * count / (time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**30
    what = name + (", checkpointing" if checkpointing else "") + (", kept features" if frozen else "")
    line = f"{what}: {count} utterances a pass, {rate:.3g} utterances/s, peak {peak:.1f} GiB ({device.type})"
    if RECIPES[name]:
        epoch = RECIPES[name] / rate / 3600
        line += f"; an epoch {epoch:.3g} h, {recipe.epochs} epochs {recipe.epochs * epoch:.3g} h"
    print(line, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=int, default=2, help="of a pass, without a GPU")
    parser.add_argument("--steps", type=int, default=3)
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")  # a process each: peak memory is its own
    for name in RECIPES:
        kinds = [(False, False), (True, False)] + ([(False, True)] if name == "asvspoof2021" else [])
        for checkpointing, frozen in kinds:
            arguments = (name, checkpointing, frozen, options.utterances, options.steps)
            process = context.Process(target=measure, args=arguments)
            process.start()
            process.join()
            if process.exitcode:
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
