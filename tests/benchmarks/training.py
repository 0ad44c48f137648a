"""
What our training loop costs over a bare one.

    python tests/benchmarks/training.py --steps 60 --rounds 5

Trains a small raw-waveform model on random speech-like windows with our trainer (a step's losses over processes,
checks, logs, signals, progress), and, in turn, with a bare PyTorch loop over the same batches, held in
memory: forward, loss, backward, step. Prints the medians of their times for the same steps and the difference.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch

from nes2net_hf.trainer import load_recipe
from nes2net_hf.trainer.loop import Trainer
from nes2net_hf.trainer.losses import build_loss
from nes2net_hf.trainer.model import build_model
from nes2net_hf.trainer.optimisation import build_optimiser

ROOT = Path(__file__).parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        manifest = _write_corpus(Path(scratch), 32)
        overrides = [
            f"data.root={manifest}", "data.train={}", "data.dev={}", "data.augmentation=[]", "data.workers=0",
            "model={encoder: {model_type: wav2vec2, feat_extract_norm: layer, do_stable_layer_norm: true, "
            "conv_bias: true, conv_dim: [48, 64, 96, 128, 128], conv_kernel: [40, 7, 5, 5, 3], "
            "conv_stride: [10, 4, 2, 2, 2], hidden_size: 128, num_hidden_layers: 1, num_attention_heads: 4, "
            "intermediate_size: 256, num_conv_pos_embeddings: 32, num_conv_pos_embedding_groups: 8, layerdrop: 0.0}, "
            "config: {layer_aggregation: weighted_sum, outer_scale: 4, inner_scale: 4}}",
            "mixed_precision=no", f"output={scratch}/run", f"epochs={arguments.steps}", "schedule.warmup_steps=0",
        ]  # fmt: skip
        recipe = load_recipe(ROOT / "training" / "configs" / "demo.yaml", overrides)
        trainer = Trainer(recipe, resume=False)
        trainer.accelerator.init_trackers("nes2net")
        batches = [batch for _ in range(2) for batch in trainer.stream]
        bare_model = build_model(recipe).train()
        bare = _bare(recipe, bare_model)
        trainer.model.train()
        times: dict[str, list[float]] = {"ours": [], "bare": []}
        for batch in batches:  # the first steps warm up
            trainer._step(dict(batch))
            bare(dict(batch))
        for turn in range(arguments.rounds):
            for name in ("ours", "bare") if turn % 2 else ("bare", "ours"):
                step = trainer._step if name == "ours" else bare
                start = time.perf_counter()
                for number in range(arguments.steps):
                    step(dict(batches[number % len(batches)]))
                times[name].append(time.perf_counter() - start)
    ours, plain = (statistics.median(times[name]) / arguments.steps for name in ("ours", "bare"))
    print(f"a step of {recipe.batch_size} utterances: bare loop {1000 * plain:.1f} ms, ours {1000 * ours:.1f} ms, "
          f"{100 * (ours / plain - 1):+.1f} %")  # fmt: skip


def _bare(recipe, model):  # type: ignore[no-untyped-def]
    optimiser, loss = build_optimiser(model, recipe), build_loss(recipe)

    def step(batch: dict[str, torch.Tensor]) -> None:
        labels = batch.pop("labels")
        value = loss(model(**batch).logits, labels) / loss.weight(labels)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.optimiser.max_gradient_norm)
        optimiser.step()
        optimiser.zero_grad()

    return step


def _write_corpus(folder: Path, utterances: int) -> Path:
    rng = np.random.default_rng(0)
    with open(folder / "data.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        for number in range(utterances):
            soundfile.write(folder / f"{number}.flac", 0.1 * rng.standard_normal(64_600), 16_000)
            writer.writerow([f"{number}.flac", ("bonafide", "spoof")[number % 2]])
    return folder / "data.csv"


if __name__ == "__main__":
    main()
