"""The training loop: recipe → data → model → steps → dev → checkpoints; nothing is lost when it is stopped."""

from __future__ import annotations

import importlib.util
import json
import logging
import math
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import parse_flag_from_env, send_to_device, set_seed, tqdm
from torch.optim.lr_scheduler import LambdaLR

from ..errors import Nes2NetError, OutputError
from ..files import atomic_file, claim, explained
from ..hub import bounded_requests, prepare_push, why
from ..pretrained.bases import BASE, describe_base, write_base
from .adapters import without_adapters
from .batches import BatchStream
from .building import build_model
from .checkpoints import copy_folder, forget, load_state, save_state, saved_states, write_folder
from .data import WindowDataset, holds_out, open_split, same_rows
from .features import FeatureSet, feature_set
from .losses import build_loss
from .optimisation import build_optimiser, learning_rate_factor, validated_epochs
from .recipe import Recipe, RecipeError
from .starting import as_begun, settle
from .validation import validate

logger = logging.getLogger(__name__)
FEW = 50  # utterances of a class, below which an EER moves in steps of more than two points


class TrainingStopped(Exception):
    """Training was asked to stop, and saved where it was; the message says how to go on."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number


class TrainingFailed(Nes2NetError, RuntimeError):
    """Training cannot go on; the message says why, and what is saved where."""


def train(recipe: Recipe, resume: bool = False, push_to_hub: str | None = None) -> Path:
    """
    Trains as the recipe says and returns the folder of the best epoch's model, `output/best`: weights, configuration
    (its threshold that of the dev EER), feature extractor and remote code, as `from_pretrained` takes them.

    Beside it lie `recipe.yaml`; `metrics.jsonl` (a line per epoch: losses, dev EER as a fraction, seconds) and
    `steps.jsonl` (a line per step); `epochs/`, the best ones' models; `checkpoints/`, what to resume from.

    Args:
        resume: go on from the last checkpoint in `output`, if there is one, as if nothing had happened.
        push_to_hub: repository that each new best model is uploaded to; private if it is new.

    Raises:
        RecipeError: the recipe cannot be followed.
        BrokenDataError: more training utterances cannot be read than the recipe allows, or one of dev.
        TrainingStopped: SIGTERM or SIGINT came; everything is saved.
        TrainingFailed: the loss is not finite, memory or disk are full; what was saved before stays.
        OutputError, DiskError: the folder cannot be written, or another run works there.
        PushError: nothing can be sent to `push_to_hub`.
    """
    # Of several processes on CPUs, only this argument makes them know of each other.
    is_main = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU")).is_main_process
    with claim(recipe.output, "workplace") if is_main else nullcontext():
        if push_to_hub is not None and is_main:
            prepare_push(push_to_hub)  # what cannot be sent is better known before the first epoch
        trainer = Trainer(recipe, resume)
        with trainer.listening():
            trainer.run(push_to_hub)
        return trainer.output / "best"


class Trainer:
    """One run: what `train` builds, and the state that a checkpoint holds."""

    def __init__(self, recipe: Recipe, resume: bool) -> None:
        self.output = Path(recipe.output)
        states = saved_states(self.output) if resume else []
        recipe = as_begun(self.output / "recipe.yaml", recipe) if states else settle(recipe)
        self.recipe = recipe
        try:
            self.accelerator = Accelerator(
                mixed_precision=recipe.mixed_precision,
                log_with=recipe.trackers or None,
                project_dir=recipe.output if recipe.trackers else None,
            )
        except (ValueError, ImportError) as error:
            raise RecipeError(f"mixed_precision, trackers: {' '.join(str(error).split())[:200]}") from error
        if len(self.accelerator.log_with) < len(recipe.trackers):  # accelerate leaves out what it cannot import
            raise RecipeError(
                f"trackers: not all of {', '.join(recipe.trackers)} are installed here: pip install them, or leave "
                "them out (trackers=[])."
            )
        processes = self.accelerator.num_processes
        if recipe.batch_size % (processes * recipe.passes):
            raise RecipeError(
                f"batch_size: {recipe.batch_size} utterances cannot be shared evenly by {processes} processes in "
                f"{recipe.passes} passes each: change one of them."
            )
        if self.accelerator.device.type == "cpu":
            # accelerate launch leaves each process one thread unless told otherwise; share out the cores it may use.
            torch.set_num_threads(max(1, _cores() // processes))
        self._settle_output(bool(states))
        set_seed(recipe.seed)

        share = recipe.batch_size // processes
        of_frames = recipe.model.head == "frames"
        rows = open_split(recipe.data, "train", share, of_frames)
        self.train_set: Any = WindowDataset(rows, recipe.data, "train", recipe.seed, of_frames)
        if recipe.data.features is not None:
            self.train_set = feature_set(recipe, "train", self.train_set)
        self.stream = BatchStream(
            self.train_set,
            rows.group_sizes,
            recipe.batch_size,
            self.train_set.collate,
            process=self.accelerator.process_index,
            processes=processes,
            passes=recipe.passes,
            seed=recipe.seed,
            keep_last=recipe.keep_last_batch,
            workers=recipe.data.workers,
            lengths=self.train_set.lengths(),
            max_broken=recipe.data.max_broken,
            pin_memory=self.accelerator.device.type == "cuda",
        )
        if not len(self.stream):
            raise RecipeError(f"batch_size: {recipe.batch_size} is more than the {len(rows)} training utterances.")
        dev = open_split(recipe.data, "dev", of_frames=of_frames)
        kinds = ("dev", "dev_augmented") if recipe.validation.augmented else ("dev",)
        self.dev_sets: dict[str, Any] = {
            kind: WindowDataset(dev, recipe.data, kind, recipe.seed, of_frames) for kind in kinds
        }
        if recipe.data.features is not None:
            self.dev_sets = {"dev": feature_set(recipe, "dev", self.dev_sets["dev"])}
        self.dev_is_train = same_rows(recipe.data) and not holds_out(recipe.data)
        self.dev_batch = recipe.validation.batch_size or 2 * share // recipe.passes

        self.loss = build_loss(recipe)
        model = build_model(recipe)
        optimiser = build_optimiser(model, recipe)
        if recipe.model.compile:
            model.compile()  # in place: wrapped, its weights would have other names
        self.model, self.optimiser = self.accelerator.prepare(model, optimiser)
        # Not prepared: accelerate would step a prepared schedule once per process.
        self.schedule = LambdaLR(self.optimiser.optimizer, learning_rate_factor(recipe, len(self.stream)))
        self.accelerator.register_for_checkpointing(self.schedule)
        for dataset in (self.train_set, *self.dev_sets.values()):
            if isinstance(dataset, FeatureSet):
                dataset.store(self.accelerator, self.model, self.dev_batch)

        self.step = 0
        self.epoch_loss = 0.0  # sum over the steps of this epoch
        self.epoch_seconds = 0.0
        self.kept: dict[str, float] = {}  # epoch folder → what it was selected by
        self.stale = 0  # validations since the best
        self.asked_to_stop = 0  # the number of the signal
        self.saved: Path | None = None
        self.saved_at = time.monotonic()
        if states:
            self._take_up(states[-1])

    def run(self, push_to_hub: str | None) -> None:
        """Epochs until the last one, or until dev has not been better for long enough."""
        recipe, validated = self.recipe, set(validated_epochs(self.recipe))
        if recipe.trackers:
            self.accelerator.init_trackers("nes2net", config={"recipe": recipe.as_yaml()})
        total = recipe.epochs * len(self.stream) * recipe.batch_size
        with tqdm(total=total, initial=self.step * recipe.batch_size, unit="utt", smoothing=0.05) as bar:
            while self.stream.epoch < recipe.epochs and not self._is_stale():
                epoch = self.stream.epoch + 1
                self._train_epoch(epoch, bar)
                record: dict[str, Any] = {
                    "epoch": epoch,
                    "step": self.step,
                    "train_loss": self.epoch_loss / len(self.stream),
                }
                started = time.monotonic()
                if epoch in validated:
                    record |= self._validate(epoch)
                record["learning_rate"] = self.schedule.get_last_lr()[0]
                record["seconds"] = round(self.epoch_seconds + time.monotonic() - started, 1)
                self._report(record)
                if epoch in validated:
                    self._keep(epoch, record, push_to_hub)
                self.epoch_loss = self.epoch_seconds = 0.0
                self._save()
        if recipe.trackers:
            self.accelerator.end_training()
        if self.accelerator.is_main_process:
            _plot(self.output)
            print(self._ended())

    def _ended(self) -> str:
        """What the run came to, in a sentence or two: figures only where they mean something."""
        best = self.output / "best"
        if self.dev_is_train:
            return (
                f"the run went through: {best}\nTrain and dev are the same recordings: no figure says how well "
                "the model judges others, and the choice of its epoch means nothing."
            )
        lines = [json.loads(line) for line in (self.output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        select = self.recipe.validation.select
        chosen = min((line for line in lines if select in line), key=lambda line: line[select])
        said = f"best model: {best} (epoch {chosen['epoch']}, dev EER {100 * chosen['dev_eer']:.2f} %)"
        labels = self.dev_sets["dev"].labels
        fewest = min(int((labels == label).sum()) for label in set(labels.tolist()))
        if fewest < FEW:
            step = f"{100 / fewest:.0f} points"
            said += f"\nDev has only {fewest} utterances of a class: one of them moves the dev EER by {step}."
        return said

    def _is_stale(self) -> bool:
        patience = self.recipe.validation.patience
        return patience is not None and self.stale >= patience

    def _train_epoch(self, epoch: int, bar: tqdm) -> None:
        self.model.train()
        recipe = self.recipe.checkpoints
        bar.set_description(f"epoch {epoch}/{self.recipe.epochs}")
        started = time.monotonic()
        for batch in self.stream:
            loss, stop, overdue = self._step(batch)
            self.epoch_loss += loss
            now = time.monotonic()
            self.epoch_seconds, started = self.epoch_seconds + now - started, now
            bar.update(self.recipe.batch_size)
            bar.set_postfix(loss=f"{loss:.4f}", lr=f"{self.schedule.get_last_lr()[0]:.2e}", refresh=False)
            if stop or overdue or (recipe.every_steps and self.step % recipe.every_steps == 0):
                self._save()
                started = time.monotonic()
            if stop:
                raise TrainingStopped(
                    f"stopped at step {self.step}, in epoch {epoch}; it is saved in {self.saved}: add --resume to the "
                    "same command to go on.",
                    stop,
                )

    def _step(self, batch: dict[str, torch.Tensor]) -> tuple[float, int, bool]:
        """
        One step of the optimiser; returns the loss over all processes, the signal that any of them heard, and whether
        a checkpoint is overdue.
        """
        accelerator, passes = self.accelerator, self.recipe.passes
        # What the loss is divided by counts the whole batch, of all processes: a mean of means would be another one.
        told = [float(self.loss.weight(batch["labels"])), self.asked_to_stop, self._is_overdue()]
        told = accelerator.reduce(torch.tensor(told, device=accelerator.device), reduction="sum")
        weight, stop, overdue = told.tolist()
        total = torch.zeros((), device=accelerator.device)
        parts = [{key: value.tensor_split(passes)[index] for key, value in batch.items()} for index in range(passes)]
        for index, part in enumerate(parts):
            part = send_to_device(part, accelerator.device, non_blocking=True)
            labels = part.pop("labels")
            with accelerator.no_sync(self.model) if index < passes - 1 else nullcontext():
                logits = accelerator.unwrap_model(self.model).two_classes(self.model(**part).logits.float())
                # Gradients are averaged over processes afterwards.
                loss = self.loss(logits, labels) * (accelerator.num_processes / weight)
                accelerator.backward(loss)
            total += loss.detach()
        loss_value = float(accelerator.reduce(total, reduction="mean"))
        if not math.isfinite(loss_value):
            raise TrainingFailed(
                f"the loss became {loss_value} in step {self.step + 1}, and nothing was learnt from it: lower "
                f"optimiser.learning_rate; {self._what_is_saved()}"
            )
        if self.recipe.optimiser.max_gradient_norm is not None:
            accelerator.clip_grad_norm_(self.model.parameters(), self.recipe.optimiser.max_gradient_norm)
        rate = self.schedule.get_last_lr()[0]
        self.optimiser.step()
        if not accelerator.optimizer_step_was_skipped:  # by the scaler of float16
            self.schedule.step()
        self.optimiser.zero_grad()
        self.step += 1
        if accelerator.is_main_process:
            with self._disk():
                _append(self.output / "steps.jsonl", {"step": self.step, "loss": loss_value, "learning_rate": rate})
        if self.recipe.trackers:
            accelerator.log({"loss": loss_value, "learning_rate": rate}, step=self.step)
        # Of several processes that heard different signals the sum says nothing, but that there was one.
        return loss_value, self.asked_to_stop or (signal.SIGTERM if stop else 0), overdue > 0

    def _is_overdue(self) -> bool:
        """Whether it is time for a checkpoint, by the clock of the main process."""
        minutes = self.recipe.checkpoints.every_minutes
        return (
            minutes is not None
            and self.accelerator.is_main_process
            and time.monotonic() - self.saved_at > 60 * minutes
        )

    def _validate(self, epoch: int) -> dict[str, float]:
        record: dict[str, float] = {}
        for name, dataset in self.dev_sets.items():
            found = validate(self.accelerator, self.model, dataset, self.loss, self.dev_batch, epoch)
            suffix = name.removeprefix("dev")
            record |= {f"dev_loss{suffix}": found.loss, f"dev_eer{suffix}": found.eer}
            if name == "dev":
                record["threshold"] = found.threshold
        return record

    def _report(self, record: dict[str, Any]) -> None:
        line = {key: round(value, 6) if isinstance(value, float) else value for key, value in record.items()}
        line["learning_rate"] = record["learning_rate"]
        if self.dev_is_train:  # of what a model has learnt by heart, dev figures say nothing
            self.accelerator.print(
                json.dumps({key: line[key] for key in line if not key.startswith(("dev", "thresh"))})
            )
        else:
            self.accelerator.print(json.dumps(line))
        if self.accelerator.is_main_process:
            with self._disk():
                _append(self.output / "metrics.jsonl", line)
        if self.recipe.trackers:
            figures = {key: value for key, value in record.items() if key.startswith(("dev", "train"))}
            self.accelerator.log(figures, step=self.step)

    def _keep(self, epoch: int, record: dict[str, Any], push_to_hub: str | None) -> None:
        """Keeps the epoch's model if it is among the best, and as `best` if it is the best."""
        chosen_by = record[self.recipe.validation.select]
        name, best = f"epoch-{epoch:04}", min(self.kept.values(), default=float("inf"))
        self.stale = 0 if chosen_by < best else self.stale + 1
        self.kept[name] = chosen_by
        dropped = sorted(self.kept, key=lambda name: (self.kept[name], name))[self.recipe.checkpoints.keep_best :]
        for old in dropped:
            del self.kept[old]
        # Of all processes, because of a sharded model each has a part.
        weights = self.accelerator.get_state_dict(self.model) if name in self.kept else None
        if not self.accelerator.is_main_process:
            return
        folder = self.output / "epochs" / name
        with self._disk():
            if name in self.kept:
                self._write_model(folder, weights, record["threshold"])
            if chosen_by < best:
                copy_folder(folder, self.output / "best")
        for old in dropped:
            if old != name:
                forget([self.output / "epochs" / old], 0)
        if push_to_hub is not None and chosen_by < best:
            _push(self.output / "best", push_to_hub, epoch)

    def _write_model(self, folder: Path, weights: Any, threshold: float) -> None:
        plain = self.accelerator.unwrap_model(self.model)
        plain.config.threshold = threshold
        extractor = self.dev_sets["dev"].extractor  # the model is to judge as it was judged
        if self.recipe.model.lora is not None:
            weights = without_adapters(plain, weights)

        def write(place: Path) -> None:
            plain.save_pretrained(place, state_dict=weights)
            extractor.save_pretrained(place)
            if (self.output / BASE).is_file():  # its licence and limits, should it move
                shutil.copyfile(self.output / BASE, place / BASE)

        write_folder(folder, write)

    def _save(self) -> None:
        """Saves the state of the run and forgets older ones."""
        folder = self.output / "checkpoints" / f"step-{self.step:08}"
        state = {
            "step": self.step,
            "stream": self.stream.state_dict(),
            "epoch_loss": self.epoch_loss,
            "epoch_seconds": self.epoch_seconds,
            "kept": self.kept,
            "stale": self.stale,
        }
        with self._disk():
            save_state(self.accelerator, folder, state)
        self.saved, self.saved_at = folder, time.monotonic()
        if self.accelerator.is_main_process:
            forget(saved_states(self.output), self.recipe.checkpoints.keep_last)

    def _take_up(self, folder: Path) -> None:
        state = load_state(self.accelerator, folder)
        self.step, self.epoch_loss, self.epoch_seconds = state["step"], state["epoch_loss"], state["epoch_seconds"]
        self.kept, self.stale, self.saved = state["kept"], state["stale"], folder
        self.stream.load_state_dict(state["stream"])
        if self.accelerator.is_main_process:
            _cut(self.output / "steps.jsonl", "step", self.step)
            _cut(self.output / "metrics.jsonl", "epoch", self.stream.epoch)
        self.accelerator.print(f"resumed from {folder}, step {self.step}")

    def _settle_output(self, resuming: bool) -> None:
        """Refuses another run's folder, and leaves the recipe in it."""
        if not resuming and (self.output / "steps.jsonl").exists() and saved_states(self.output):
            raise RecipeError(
                f"output: {self.output} holds a run already: go on with it by --resume, or name another folder."
            )
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process and not resuming:
            self.output.mkdir(parents=True, exist_ok=True)
            if self.recipe.model.pretrained:
                write_base(describe_base(self.recipe.model.pretrained, self.recipe.model.revision, True), self.output)
            texts = {"recipe.yaml": self.recipe.as_yaml(), "steps.jsonl": "", "metrics.jsonl": ""}
            for name, text in texts.items():
                with atomic_file(self.output / name) as file:
                    file.write(text)
        self.accelerator.wait_for_everyone()

    def _what_is_saved(self) -> str:
        if self.saved is None:
            return "no checkpoint was saved yet."
        return f"the last checkpoint, {self.saved}, and the models in {self.output / 'epochs'} are as they were."

    @contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except (OSError, OutputError) as error:
            reason = str(error).rstrip(".")
            if isinstance(error, OSError) and error.strerror:
                reason = f"{error.strerror}: {error.filename or self.output}"
            raise TrainingFailed(
                f"step {self.step} cannot be saved ({reason}): make room, then --resume; {self._what_is_saved()}"
            ) from error

    @contextmanager
    def listening(self) -> Iterator[None]:
        """SIGTERM (what a cluster sends before it takes a machine away) and SIGINT ask for a stop after the step."""

        def hear(number: int, frame: Any) -> None:
            self.asked_to_stop = number

        before = {number: signal.signal(number, hear) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise TrainingFailed(
                f"out of memory in step {self.step + 1}: raise passes, or set model.gradient_checkpointing; "
                f"{self._what_is_saved()}"
            ) from error
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _cores() -> int:
    """Those this process may run on: a cluster, or taskset, may have given it a part of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _append(path: Path, record: dict[str, Any]) -> None:
    with explained(path), open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def _cut(path: Path, key: str, last: int) -> None:
    """Forgets what came after the checkpoint: it comes again."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    kept = []
    for line in lines:
        try:
            if json.loads(line)[key] <= last:
                kept.append(line + "\n")
        except ValueError:
            break  # a kill cut it in two
    with atomic_file(path) as file:
        file.write("".join(kept))


def _push(folder: Path, repo_id: str, epoch: int) -> None:
    """A failure is said and does not stop training: the next best is pushed again."""
    from huggingface_hub import HfApi

    try:
        with bounded_requests():
            HfApi().create_repo(repo_id, private=True, exist_ok=True)
            HfApi().upload_folder(repo_id=repo_id, folder_path=folder, commit_message=f"epoch {epoch}")
    except Exception as error:
        logger.warning("epoch %d was not pushed to %s: %s", epoch, repo_id, why(error))


def _plot(output: Path) -> None:
    if importlib.util.find_spec("matplotlib") is not None:  # it is an extra
        from .curves import plot_curves

        plot_curves(output / "metrics.jsonl", output / "curves.png")
