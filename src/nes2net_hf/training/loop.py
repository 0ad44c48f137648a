"""The training loop: recipe → data → model → steps → dev EER per epoch → best checkpoint."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, send_to_device, set_seed, tqdm
from transformers import get_cosine_schedule_with_warmup

from ..configuration_nes2net import Nes2NetConfig
from ..feature_extraction_nes2net import Nes2NetFeatureExtractor
from ..metrics import EqualErrorRate, equal_error_rate
from ..modeling_nes2net import Nes2NetForAudioClassification
from .batches import BatchStream, in_order
from .data import WindowDataset, open_split
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
    train_rows = open_split(recipe.data, "train", batch_size)
    train_set = WindowDataset(train_rows, recipe.data, True, recipe.seed)
    stream = BatchStream(
        train_set,
        train_rows.group_sizes,
        recipe.batch_size,
        train_set.collate,
        process=accelerator.process_index,
        processes=accelerator.num_processes,
        seed=recipe.seed,
        workers=recipe.data.workers,
        max_broken=recipe.data.max_broken,
        pin_memory=accelerator.device.type == "cuda",
    )
    if not len(stream):
        raise RecipeError(f"batch_size: {recipe.batch_size} is more than the {len(train_rows)} training utterances.")
    dev_set = WindowDataset(open_split(recipe.data, "dev"), recipe.data, False)

    model = build_model(recipe)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=recipe.optimiser.learning_rate, weight_decay=recipe.optimiser.weight_decay
    )
    model, optimiser = accelerator.prepare(model, optimiser)
    total_steps = recipe.epochs * len(stream)
    # Not prepared: accelerate would step a prepared schedule once per process.
    schedule = get_cosine_schedule_with_warmup(optimiser, recipe.optimiser.warmup_steps, total_steps)

    best = float("inf")
    for epoch in range(recipe.epochs):
        started = time.monotonic()
        loss = train_epoch(accelerator, model, optimiser, schedule, stream, recipe, epoch)
        eer, threshold = dev_eer(accelerator, model, dev_set, 2 * batch_size)
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


def train_epoch(accelerator, model, optimiser, schedule, stream: BatchStream, recipe: Recipe, epoch: int) -> float:
    """One pass over the training windows; returns the mean loss."""
    model.train()
    total = torch.zeros((), device=accelerator.device)
    progress = tqdm(stream, desc=f"epoch {epoch + 1}/{recipe.epochs}", unit="batch", leave=False)
    for step, batch in enumerate(progress):
        loss = model(**send_to_device(batch, accelerator.device, non_blocking=True)).loss
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
    return accelerator.reduce(total, reduction="mean").item() / len(stream)


@torch.inference_mode()
def dev_eer(accelerator, model, dataset: WindowDataset, batch_size: int) -> EqualErrorRate:
    """EER (a fraction) and its threshold over the first window of every dev utterance, none twice and none lost."""
    model.eval()
    plain = accelerator.unwrap_model(model)
    share = np.array_split(np.arange(len(dataset)), accelerator.num_processes)[accelerator.process_index]
    scores: list[float] = []
    batches = in_order(dataset, share.tolist(), batch_size, dataset.collate, dataset.recipe.workers)
    for batch in tqdm(batches, desc="dev", unit="batch", total=-(-len(share) // batch_size), leave=False):
        with accelerator.autocast():
            logits = plain(batch["input_values"].to(accelerator.device)).logits
        scores += plain.score(logits).tolist()
    everyone = np.array(gather_object(scores))  # by process, and so in the rows' order
    is_bonafide = dataset.rows.labels == 1
    return equal_error_rate(everyone[is_bonafide], everyone[~is_bonafide])


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
