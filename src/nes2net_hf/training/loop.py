"""The training loop: recipe → data → model → steps → dev EER per epoch → best checkpoint."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed, tqdm
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import get_cosine_schedule_with_warmup

from ..configuration_nes2net import Nes2NetConfig
from ..feature_extraction_nes2net import Nes2NetFeatureExtractor
from ..metrics import EqualErrorRate, equal_error_rate
from ..modeling_nes2net import Nes2NetForAudioClassification
from .data import WindowDataset, read_manifest
from .recipe import Recipe, RecipeError


def train(recipe: Recipe) -> Path:
    """
    Trains as the recipe says and returns the folder of the best checkpoint, `output/best`: weights, configuration,
    feature extractor and remote code, as `from_pretrained` takes them, its threshold that of the dev EER. Beside it
    lie `recipe.yaml` and `metrics.jsonl` (one line per epoch: loss, dev EER as a fraction, seconds).

    Raises:
        RecipeError: the recipe cannot be followed.
        FloatingPointError: the loss is not finite; the best checkpoint so far stays.
    """
    accelerator = Accelerator(mixed_precision=recipe.mixed_precision)
    if recipe.batch_size % accelerator.num_processes:
        raise RecipeError(
            f"batch_size: {recipe.batch_size} utterances cannot be shared evenly by {accelerator.num_processes} "
            "processes."
        )
    if accelerator.device.type == "cpu":
        # accelerate launch leaves each process one thread unless told otherwise; share out all cores.
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // accelerator.num_processes))
    set_seed(recipe.seed)
    output = Path(recipe.output)
    if accelerator.is_main_process:
        if (output / "metrics.jsonl").exists():
            raise RecipeError(f"output: {output} holds a run already; choose another folder or remove it.")
        output.mkdir(parents=True, exist_ok=True)
        recipe.save(output / "recipe.yaml")

    batch_size = recipe.batch_size // accelerator.num_processes
    train_set = WindowDataset(read_manifest(recipe.data.root, "train"), recipe.data, True, recipe.seed)
    dev_set = WindowDataset(read_manifest(recipe.data.root, "dev"), recipe.data, False)
    train_loader: DataLoader = DataLoader(
        train_set, batch_size, shuffle=True, drop_last=True, num_workers=recipe.data.workers
    )
    dev_loader: DataLoader = DataLoader(dev_set, 2 * batch_size, num_workers=recipe.data.workers)
    if len(train_loader) < accelerator.num_processes:
        raise RecipeError(f"batch_size: {recipe.batch_size} is more than the {len(train_set)} training utterances.")

    model = build_model(recipe)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=recipe.optimiser.learning_rate, weight_decay=recipe.optimiser.weight_decay
    )
    model, optimiser, train_loader, dev_loader = accelerator.prepare(model, optimiser, train_loader, dev_loader)
    total_steps = recipe.epochs * len(train_loader)
    # Not prepared: accelerate would step a prepared schedule once per process.
    schedule = get_cosine_schedule_with_warmup(optimiser, recipe.optimiser.warmup_steps, total_steps)

    best = float("inf")
    for epoch in range(recipe.epochs):
        started = time.monotonic()
        train_set.epoch = epoch
        loss = train_epoch(accelerator, model, optimiser, schedule, train_loader, recipe, epoch)
        eer, threshold = dev_eer(accelerator, model, dev_loader)
        record = {
            "epoch": epoch + 1,
            "train_loss": round(loss, 6),
            "dev_eer": round(eer, 6),
            "learning_rate": schedule.get_last_lr()[0],
            "seconds": round(time.monotonic() - started, 1),
        }
        accelerator.print(json.dumps(record))
        if accelerator.is_main_process:
            with open(output / "metrics.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            if eer < best:
                plain = accelerator.unwrap_model(model)
                plain.config.threshold = threshold
                save_checkpoint(plain, dev_set.extractor, output / "best")
        best = min(best, eer)
        accelerator.wait_for_everyone()
    accelerator.end_training()
    return output / "best"


def build_model(recipe: Recipe) -> Nes2NetForAudioClassification:
    """The recipe's model: around a pretrained encoder, or random throughout."""
    try:
        if recipe.model.pretrained:
            return Nes2NetForAudioClassification.from_encoder_pretrained(  # type: ignore[return-value]
                recipe.model.pretrained, encoder_overrides=recipe.model.encoder, **recipe.model.config
            )
        return Nes2NetForAudioClassification(Nes2NetConfig(encoder_config=recipe.model.encoder, **recipe.model.config))
    except ValueError as error:
        raise RecipeError(f"model: {error}") from error


def train_epoch(accelerator, model, optimiser, schedule, loader, recipe: Recipe, epoch: int) -> float:
    """One pass over the training windows; returns the mean loss."""
    model.train()
    total = torch.zeros((), device=accelerator.device)
    progress = tqdm(loader, desc=f"epoch {epoch + 1}/{recipe.epochs}", unit="batch", leave=False)
    for step, batch in enumerate(progress):
        loss = model(**batch).loss
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"The loss became {loss.item()} in epoch {epoch + 1}, batch {step + 1}: lower "
                f"optimiser.learning_rate; the best checkpoint so far is in {Path(recipe.output) / 'best'}."
            )
        accelerator.backward(loss)
        if recipe.optimiser.max_gradient_norm is not None:
            accelerator.clip_grad_norm_(model.parameters(), recipe.optimiser.max_gradient_norm)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        total += loss.detach()
        if step % 10 == 0:
            progress.set_postfix(loss=f"{total.item() / (step + 1):.4f}")
    return accelerator.reduce(total, reduction="mean").item() / len(loader)


@torch.inference_mode()
def dev_eer(accelerator, model, loader) -> EqualErrorRate:
    """EER (a fraction) and its threshold over the first window of every dev utterance, none twice and none lost."""
    model.eval()
    score = accelerator.unwrap_model(model).score
    scores: list[Tensor] = []
    labels: list[Tensor] = []
    for batch in tqdm(loader, desc="dev", unit="batch", leave=False):
        truth = batch.pop("labels")
        both = accelerator.gather_for_metrics((score(model(**batch).logits), truth))
        scores.append(both[0].cpu())
        labels.append(both[1].cpu())
    score_vector, is_bonafide = torch.cat(scores).numpy(), torch.cat(labels).numpy() == 1
    return equal_error_rate(score_vector[is_bonafide], score_vector[~is_bonafide])


def save_checkpoint(model: Nes2NetForAudioClassification, extractor: Nes2NetFeatureExtractor, folder: Path) -> None:
    """Writes beside and renames, so that a kill never leaves half a checkpoint."""
    fresh, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    model.save_pretrained(fresh)
    extractor.save_pretrained(fresh)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
