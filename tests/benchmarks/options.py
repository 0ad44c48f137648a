"""
Trains a small model on the demonstration corpus with each training option, beside the same model without it:

python tests/benchmarks/options.py --corpus demo-corpus --out runs/options

A run that is complete is not repeated, so the script continues after a stop.
"""

from __future__ import annotations

import argparse
import json
import time
from contextlib import redirect_stdout
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from nes2net_hf.trainer import load_recipe, train

RECIPE = Path(__file__).parents[2] / "training" / "configs" / "demo.yaml"
SMALLER = [
    "model.pretrained=null",
    "model.config.waveform_stem=null",
    "model.config.pooling=mean",
    "optimiser.encoder_learning_rate=null",
    "model.encoder={model_type: wav2vec2, feat_extract_norm: layer, do_stable_layer_norm: true, conv_bias: true, "
    "conv_dim: [32, 48, 64, 64, 64], conv_kernel: [40, 7, 5, 5, 3], conv_stride: [10, 4, 2, 2, 2], hidden_size: 64, "
    "num_hidden_layers: 2, num_attention_heads: 4, intermediate_size: 128, num_conv_pos_embeddings: 32, "
    "num_conv_pos_embedding_groups: 8, hidden_dropout: 0.1, attention_dropout: 0.0, activation_dropout: 0.0, "
    "feat_proj_dropout: 0.1, layerdrop: 0.0, apply_spec_augment: false}",
    "mixed_precision=no",
    "data.augmentation=[]",
    "data.window_length=32000",
    "data.crop_length=16000",
    "data.workers=0",
    "schedule.warmup_steps=50",
    "trackers=[]",
    "checkpoints.keep_best=1",
    "checkpoints.keep_last=1",
]
PARTS = {split: "{corpora: {wide: {corpus: own-data, root: MANIFEST, where: {partition: SPLIT, codec: g722}}, "
                "narrow: {corpus: own-data, root: MANIFEST, where: {partition: SPLIT, codec: g722-8k}}}}"
         .replace("SPLIT", split) for split in ("train", "dev")}  # fmt: skip
OPTIONS: dict[str, list[str]] = {
    "base": [],
    "balance: class": ["data.mixing={balance: class}"],
    "balance: attack": ["data.mixing={balance: attack}"],
    "balance: speaker": ["data.mixing={balance: speaker}"],
    "two corpora, temperature 2": [
        f"data.train={PARTS['train']}", f"data.dev={PARTS['dev']}", "data.mixing={temperature: 2}",
    ],
    "excerpts of 0.5 to 1.5 s": [
        "data.window_length={min: 0.5, max: 1.5}", "data.min_samples=900", "data.crop_length=null", "batch_seconds=16",
        "data.evaluate=whole",
    ],
    "sam_rho: 0.05": ["optimiser.sam_rho=0.05"],
    "average: ema, decay 0.99": ["average={name: ema, decay: 0.99}"],
    "average: swa from epoch 3": ["average={name: swa, first_epoch: 3, batch_norm_batches: 30}"],
    "freeze_epochs: 1, thaw_layers: 1": ["model.freeze_epochs=1", "model.thaw_layers=1"],
    "oc_softmax": ["loss.name=oc_softmax", "model.config.classifier_outputs=1", "model.config.cosine_scale=20"],
    "am_softmax": ["loss.name=am_softmax", "model.config.cosine_scale=20"],
    "silence": ["data.augmentation=[{name: silence, probability: 0.5}]"],
}  # fmt: skip


def run(name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Trains once, and returns the dev EER of the best epoch, in %, and the CPU seconds of an epoch with dev."""
    folder = options.out / f"{name.replace(' ', '-').replace(':', '').replace(',', '')}-{seed}"
    if not (folder / "result.json").is_file():
        manifest = str((options.corpus / "manifest.csv").resolve())
        common = [f"data.root={manifest}", f"output={folder}", f"seed={seed}", f"epochs={options.epochs}"]
        chosen = [one.replace("MANIFEST", manifest) for one in OPTIONS[name]]
        started = time.process_time()
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "log.txt", "w", encoding="utf-8") as log, redirect_stdout(log):
            train(load_recipe(RECIPE, [*SMALLER, *common, *chosen]))
        seconds = (time.process_time() - started) / options.epochs
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        result = {"eer": 100 * min(line["dev_eer"] for line in lines), "seconds": seconds}
        (folder / "result.json").write_text(json.dumps(result))
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--corpus", type=Path, required=True, help="the folder that training/demo/build_corpus.py made"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--only", nargs="+", choices=OPTIONS, default=list(OPTIONS), help="these options")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| option | seeds | dev EER, % | CPU seconds per epoch |\n|---|---:|---:|---:|", flush=True)
    for name in options.only:
        results = [run(name, seed, options) for seed in options.seeds]
        eers = ", ".join(f"{result['eer']:.1f}" for result in results)
        seconds = mean(result["seconds"] for result in results)
        print(f"| {name} | {len(results)} | {eers} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
