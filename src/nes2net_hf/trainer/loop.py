"""
The training loop: recipe → data → model → steps → dev → checkpoints. Nothing is lost when it stops.

We use our own loop instead of a library's trainer because a run that is stopped after any step and resumed must end
with the same bits as a run without a stop. So one place must decide what a step draws, sums and saves, and in which
order.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import logging
import math
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env, set_seed, tqdm

from ..errors import Nes2NetError, OutputError
from ..files import atomic_file, claim
from ..hub import prepare_push, push_folder, why
from ..pretrained.bases import BASE, describe_base, write_base
from .batches import BatchStream
from .checkpoints import copy_folder, forget, load_state, save_state, saved_states, write_folder
from .gradients import Part, accumulate
from .journal import append, cut
from .losses import build_loss
from .model import without_adapters
from .optimisation import held_back, validated_epochs
from .parts import build_learner, open_data, start_processes, training_stream
from .recipe import Recipe, RecipeError
from .selection import break_records, is_better, ranked
from .sharpness import climbed
from .starting import as_begun, settle
from .validation import validate

logger = logging.getLogger(__name__)
FEW = 50  # with fewer utterances of a class, the EER moves in steps of more than two percentage points


class TrainingStopped(Exception):
    """Training was asked to stop and saved its state. The message says how to continue."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number


class TrainingFailed(Nes2NetError, RuntimeError):
    """Training cannot continue. The message says why, and where the last state is saved."""


def train(recipe: Recipe, resume: bool = False, push_to_hub: str | None = None) -> Path:
    """
    Trains as the recipe says and returns `output/best`, the folder of the best epoch's model. It holds the weights,
    configuration (with the threshold at the dev EER), feature extractor and remote code, ready for `from_pretrained`.

    The output folder also contains `recipe.yaml`, `metrics.jsonl` (one line per epoch: losses, dev EER as a fraction,
    dev min DCF and Cllr, seconds), `steps.jsonl` (one line per step), `epochs/` (models of the best epochs) and
    `checkpoints/` (states to resume from).

    Args:
        resume: continue from the last checkpoint in `output`, if there is one, as if the run had never stopped.
        push_to_hub: the repository to upload each new best model to. A new repository is private.

    Raises:
        RecipeError: the recipe cannot be followed.
        BrokenDataError: a dev utterance, or more training utterances than the recipe allows, cannot be read.
        TrainingStopped: SIGTERM or SIGINT arrived. The state is saved.
        TrainingFailed: the loss is not finite, or memory or the disk is full. Earlier saves are kept.
        OutputError, DiskError: the folder cannot be written, another run uses it, or it began as another run.
        PushError: `push_to_hub` does not accept uploads.
    """
    # Without this argument, several processes on CPUs do not find each other.
    is_main = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU")).is_main_process
    with claim(recipe.output, "workplace") if is_main else nullcontext():
        if push_to_hub is not None and is_main:
            prepare_push(push_to_hub)  # fail before the first epoch, not after it
        trainer = Trainer(recipe, resume)
        with trainer.listening():
            trainer.run(push_to_hub)
        return trainer.output / "best"


@dataclass
class Progress:
    """How far a run is. A checkpoint keeps it as JSON, with the position in the stream."""

    step: int = 0
    epoch_loss: float = 0.0
    """Sum of the losses of this epoch's steps."""
    epoch_seconds: float = 0.0
    kept: dict[str, float] = field(default_factory=dict)
    """Maps the folder of each kept epoch to the value of the selection metric."""
    stale: int = 0
    """Number of validations since the best one."""
    records: dict[str, float] = field(default_factory=dict)
    """The best value so far of each criterion: see `break_records`."""
    of_corpora: list[list[float]] = field(default_factory=list)
    """Summed loss and weight of each training corpus in this epoch, if there are several."""


class Step(NamedTuple):
    """The result of a step, the same on all processes."""

    loss: float
    """Mean over the whole batch."""
    stop: int
    """The signal that asked any process to stop, or 0."""
    save: bool
    """Whether a checkpoint is due by time."""
    of_corpora: list[list[float]]
    """Summed loss and weight of each training corpus, if there are several."""


class Trainer:
    """One run with its parts, progress and folder."""

    def __init__(self, recipe: Recipe, resume: bool) -> None:
        self.output = Path(recipe.output)
        states = saved_states(self.output) if resume else []
        self.recipe = as_begun(self.output / "recipe.yaml", recipe) if states else settle(recipe)
        self.accelerator = start_processes(self.recipe)
        self._prepare_output(resuming=bool(states))
        # The order matters for reproducibility. The seed is set before the model draws its weights; features are
        # computed by the model that accelerate prepared; a checkpoint is restored last and replaces all random states.
        set_seed(self.recipe.seed)
        data = open_data(self.recipe, self.accelerator, resuming=bool(states))
        self.loss = build_loss(self.recipe)
        self.model, self.optimiser, self.schedule, self.average = build_learner(
            self.recipe, self.accelerator, len(data.stream)
        )
        data.store_features(self.accelerator, self.model)
        self.data, self.stream = data, data.stream
        self.progress = Progress()
        self.asked_to_stop = 0  # the number of the signal
        self.saved: Path | None = None
        self.saved_at = time.monotonic()
        if states:
            self._restore(states[-1])

    def run(self, push_to_hub: str | None) -> None:
        """Runs all epochs, or stops early when dev has not improved for `patience` validations."""
        recipe, progress, validated = self.recipe, self.progress, set(validated_epochs(self.recipe))
        if recipe.trackers:
            self.accelerator.init_trackers("nes2net", config={"recipe": recipe.as_yaml()})
        total = recipe.epochs * self.stream.utterances
        done = round(progress.step * self.stream.utterances / len(self.stream))
        with tqdm(total=total, initial=done, unit="utt", smoothing=0.05) as bar:
            while self.stream.epoch < recipe.epochs and not self._is_stale():
                epoch, steps = self.stream.epoch + 1, len(self.stream)
                self._train_epoch(epoch, bar)
                record: dict[str, Any] = {
                    "epoch": epoch,
                    "step": progress.step,
                    "train_loss": progress.epoch_loss / steps,
                }
                for name, (summed, weight) in zip(self.data.train_set.names, progress.of_corpora):
                    if weight:
                        record[f"train_loss/{name}"] = summed / weight
                started = time.monotonic()
                if self.average is not None:
                    self.average.after_epoch(self.accelerator.unwrap_model(self.model), epoch, self._again(epoch))
                if epoch in validated:
                    record |= self._validate(epoch)
                record["learning_rate"] = self._rate()
                record["seconds"] = round(progress.epoch_seconds + time.monotonic() - started, 1)
                self._report(record)
                if epoch in validated:
                    self._keep(epoch, record, push_to_hub)
                progress.epoch_loss = progress.epoch_seconds = 0.0
                progress.of_corpora = []
                self._save()
        if recipe.trackers:
            self.accelerator.end_training()
        if self.accelerator.is_main_process:
            _plot(self.output)
            print(self._ended())

    def _ended(self) -> str:
        """Returns the result of the run in a few sentences, with the dev EER only if it is meaningful."""
        best = self.output / "best"
        labels = self.data.dev_sets["dev"].labels
        if self.data.shared == len(labels):
            return (
                f"training finished: {best}\nTrain and dev are the same recordings: dev shows neither how well the "
                "model judges new recordings nor which epoch to choose."
            )
        lines = [json.loads(line) for line in (self.output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        name, *_ = ranked(self.progress.kept, self.recipe.validation.ties)
        chosen = next(line for line in lines if _folder_name(line["epoch"]) == name)
        said = f"best model: {best} (epoch {chosen['epoch']}, dev EER {100 * chosen['dev_eer']:.2f} %"
        if "dev_eer_mean" in chosen:
            said += f", mean over corpora {100 * chosen['dev_eer_mean']:.2f} %"
        said += ")"
        if self.data.shared:
            shared = f"{self.data.shared} of the {len(labels)} dev recordings are"
            said += f"\n{shared} also in train: the dev EER is too optimistic."
        fewest = min(int((labels == label).sum()) for label in set(labels.tolist()))
        if fewest < FEW:
            step = f"{100 / fewest:.0f} percentage points"
            said += f"\nDev has only {fewest} utterances of a class: each can change the dev EER by {step}."
        return said

    def _is_stale(self) -> bool:
        patience = self.recipe.validation.patience
        return patience is not None and self.progress.stale >= patience

    def _train_epoch(self, epoch: int, bar: tqdm) -> None:
        self.model.train()
        recipe, progress = self.recipe.checkpoints, self.progress
        bar.set_description(f"epoch {epoch}/{self.recipe.epochs}")
        started = time.monotonic()
        for batch in self.stream:
            done = self._step(batch)
            now = time.monotonic()
            progress.epoch_loss += self._share() * done.loss
            before = progress.of_corpora or [[0.0, 0.0]] * len(done.of_corpora)
            progress.of_corpora = np.add(before, done.of_corpora).tolist()
            progress.epoch_seconds, started = progress.epoch_seconds + now - started, now
            bar.update(self.stream.size)
            bar.set_postfix(loss=f"{done.loss:.4f}", lr=f"{self._rate():.2e}", refresh=False)
            if done.stop or done.save or (recipe.every_steps and progress.step % recipe.every_steps == 0):
                self._save()
                started = time.monotonic()
            if done.stop:
                raise TrainingStopped(
                    f"training stopped at step {progress.step} in epoch {epoch} and is saved in {self.saved}: add "
                    "--resume to the same command to continue.",
                    done.stop,
                )

    def _step(self, batch: dict[str, torch.Tensor]) -> Step:
        """Takes one optimiser step, in which each process handles its share of the batch."""
        accelerator, rho = self.accelerator, self.recipe.optimiser.sam_rho
        done = self._learn_from(batch)
        if rho is not None:
            with climbed(self.model, rho):
                self.optimiser.zero_grad()
                self._learn_from(batch)
        if self.recipe.optimiser.max_gradient_norm is not None:
            accelerator.clip_grad_norm_(self.model.parameters(), self.recipe.optimiser.max_gradient_norm)
        rate = self._rate()
        self.optimiser.step()
        if not accelerator.optimizer_step_was_skipped:  # by the scaler of float16
            self.schedule.step()
            if self.average is not None:
                self.average.after_step(accelerator.unwrap_model(self.model))
        self.optimiser.zero_grad()
        self.progress.step += 1
        step = self.progress.step
        if accelerator.is_main_process:
            with self._disk():
                append(self.output / "steps.jsonl", {"step": step, "loss": done.loss, "learning_rate": rate})
        if self.recipe.trackers:
            accelerator.log({"loss": done.loss, "learning_rate": rate}, step=step)
        return done

    def _learn_from(self, batch: dict[str, torch.Tensor]) -> Step:
        """Adds up the gradients of a batch."""
        passes, corpora = self.recipe.passes, len(self.data.train_set.names)
        done = self._agree(accumulate(self.accelerator, self.model, self.loss, batch, passes, self._share(), corpora))
        if not math.isfinite(done.loss):
            raise TrainingFailed(
                f"the loss became {done.loss} in step {self.progress.step + 1}, so the step was not taken: lower "
                f"optimiser.learning_rate; {self._what_is_saved()}"
            )
        # This leaves weights that are frozen in this epoch as they are: Adam skips weights without gradients and keeps
        # no moments for them. `requires_grad=False` would save time, but DDP never synchronises weights that are
        # frozen at the start.
        plain = self.accelerator.unwrap_model(self.model)
        for parameter in held_back(plain, self.recipe.model, self.stream.epoch):
            parameter.grad = None
        return done

    def _share(self) -> float:
        """
        Returns how many utterances the batch has, relative to a mean batch of the epoch, so that an utterance counts
        as much in a batch with few others as in one with many. It is 1 unless batches have a budget of seconds.
        """
        if self.recipe.batch_seconds is None or not self.stream.size:
            return 1.0
        return self.stream.size * len(self.stream) / self.stream.utterances

    def _again(self, epoch: int) -> BatchStream:
        """Returns the training batches of an epoch, counted from 1, from its beginning."""
        accelerator = self.accelerator
        stream = training_stream(
            self.recipe, self.data.train_set, accelerator.process_index, accelerator.num_processes
        )
        stream.start(epoch - 1)
        return stream

    def _agree(self, part: Part) -> Step:
        """
        Returns the loss over all processes, and whether any process must stop or save. One reduction gives all
        processes the same answer, so none waits at a checkpoint while others do not save.
        """
        loss = part.loss
        here = torch.stack([loss, loss.new_tensor(self.asked_to_stop), loss.new_tensor(self._is_overdue())])
        told: Any = self.accelerator.reduce(torch.cat([here, part.of_corpora.flatten()]), reduction="sum")
        total, signals, overdue, *sums = told.tolist()
        # If processes received different signals, the sum only shows that there was one.
        stop = (self.asked_to_stop or int(signal.SIGTERM)) if signals else 0
        of_corpora = [sums[start : start + 2] for start in range(0, len(sums), 2)]
        return Step(total / self.accelerator.num_processes, stop, bool(overdue), of_corpora)

    def _rate(self) -> float:
        """Returns the learning rate of the first parameter group for the next step."""
        return float(self.schedule.get_last_lr()[0])

    def _is_overdue(self) -> bool:
        """Returns whether a checkpoint is due by the main process's clock."""
        minutes = self.recipe.checkpoints.every_minutes
        return (
            minutes is not None
            and self.accelerator.is_main_process
            and time.monotonic() - self.saved_at > 60 * minutes
        )

    @property
    def judged(self) -> Any:
        """The model that is evaluated and saved: with the averaged weights, if the run averages them."""
        return (self.average.model if self.average is not None else None) or self.model

    def _validate(self, epoch: int) -> dict[str, float]:
        record: dict[str, float] = {}
        for name, dataset in self.data.dev_sets.items():
            loss_batch = self.recipe.validation.loss_batch
            found = validate(self.accelerator, self.judged, dataset, self.loss, self.data.dev_batch, epoch, loss_batch)
            suffix = name.removeprefix("dev")
            record |= found.record(suffix)
            if name == "dev":
                record["threshold"] = found.threshold
        return record

    def _report(self, record: dict[str, Any]) -> None:
        line = {key: round(value, 6) if isinstance(value, float) else value for key, value in record.items()}
        line["learning_rate"] = record["learning_rate"]
        shown = line
        if self.data.shared == len(self.data.dev_sets["dev"]):  # results on training recordings would mislead
            shown = {key: line[key] for key in line if not key.startswith(("dev", "threshold"))}
        self.accelerator.print(json.dumps(shown))
        if self.accelerator.is_main_process:
            with self._disk():
                append(self.output / "metrics.jsonl", line)
        if self.recipe.trackers:
            figures = {key: value for key, value in record.items() if key.startswith(("dev", "train"))}
            self.accelerator.log(figures, step=self.progress.step)

    def _keep(self, epoch: int, record: dict[str, Any], push_to_hub: str | None) -> None:
        """Keeps the epoch's model as `checkpoints.keep` says, and copies it to `best` if it is the best."""
        progress, kept, rules = self.progress, self.progress.kept, self.recipe.validation
        chosen_by, name = record[rules.select], _folder_name(epoch)
        is_best = is_better(chosen_by, min(kept.values(), default=float("inf")), rules.ties)
        progress.stale = 0 if is_best else progress.stale + 1
        if break_records(progress.records, record, rules) or self.recipe.checkpoints.keep == "best":
            kept[name] = chosen_by
        dropped = ranked(kept, rules.ties)[self.recipe.checkpoints.keep_best :]
        for old in dropped:
            del kept[old]
        # On all processes, because each has only a part of a sharded model.
        weights = self.accelerator.get_state_dict(self.judged) if name in kept else None
        if not self.accelerator.is_main_process:
            return
        folder = self.output / "epochs" / name
        with self._disk():
            if name in kept:
                self._write_model(folder, weights, record["threshold"])
            if is_best:
                copy_folder(folder, self.output / "best")
        for old in dropped:
            if old != name:
                forget([self.output / "epochs" / old], 0)
        if push_to_hub is not None and is_best:
            _push(self.output / "best", push_to_hub, epoch)

    def _write_model(self, folder: Path, weights: Any, threshold: float) -> None:
        plain = self.accelerator.unwrap_model(self.judged)
        plain.config.threshold = threshold
        extractor = self.data.dev_sets["dev"].extractor  # detection must prepare audio in the same way as dev
        if self.recipe.model.lora is not None:
            weights = without_adapters(plain, weights)

        def write(place: Path) -> None:
            plain.save_pretrained(place, state_dict=weights)
            extractor.save_pretrained(place)
            if (self.output / BASE).is_file():  # licence and limits of the base stay with the weights
                shutil.copyfile(self.output / BASE, place / BASE)

        write_folder(folder, write)

    def _save(self) -> None:
        """Saves the state of the run and removes old checkpoints."""
        folder = self.output / "checkpoints" / f"step-{self.progress.step:08}"
        state = {**dataclasses.asdict(self.progress), "stream": self.stream.state_dict()}
        with self._disk():
            save_state(self.accelerator, folder, state)
        self.saved, self.saved_at = folder, time.monotonic()
        if self.accelerator.is_main_process:
            forget(saved_states(self.output), self.recipe.checkpoints.keep_last)

    def _restore(self, folder: Path) -> None:
        state = load_state(self.accelerator, folder)
        self.stream.load_state_dict(state.pop("stream"))
        self.progress, self.saved = Progress(**state), folder
        if self.accelerator.is_main_process:
            cut(self.output / "steps.jsonl", "step", self.progress.step)
            cut(self.output / "metrics.jsonl", "epoch", self.stream.epoch)
        self.accelerator.print(f"resumed from {folder}, step {self.progress.step}")

    def _prepare_output(self, resuming: bool) -> None:
        """Refuses a folder that already has a run, and writes the recipe into a new one."""
        if not resuming and (self.output / "steps.jsonl").exists() and saved_states(self.output):
            raise RecipeError(
                f"output: {self.output} already has a run: add --resume to continue it, or name another folder."
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
        return f"the last checkpoint, {self.saved}, and the models in {self.output / 'epochs'} are unchanged."

    @contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except (OSError, OutputError) as error:
            reason = str(error).rstrip(".")
            if isinstance(error, OSError) and error.strerror:
                reason = f"{error.strerror}: {error.filename or self.output}"
            raise TrainingFailed(
                f"step {self.progress.step} cannot be saved ({reason}): free disk space and add --resume to continue; "
                f"{self._what_is_saved()}"
            ) from error

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within it, SIGINT and SIGTERM (which a cluster sends before it stops a job) stop the run after the step."""

        def hear(number: int, frame: Any) -> None:
            self.asked_to_stop = number

        before = {number: signal.signal(number, hear) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise TrainingFailed(
                f"out of memory in step {self.progress.step + 1}: increase passes, or set "
                "model.gradient_checkpointing=true; "
                f"{self._what_is_saved()}"
            ) from error
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _folder_name(epoch: int) -> str:
    """Returns the name of the folder in `epochs/` of an epoch, counted from 1."""
    return f"epoch-{epoch:04}"


def _push(folder: Path, repo_id: str, epoch: int) -> None:
    """Uploads a model. A failure is only logged, because the next best model is uploaded anyway."""
    try:
        push_folder(folder, repo_id, f"epoch {epoch}")
    except Exception as error:
        logger.warning("epoch %d could not be uploaded to %s: %s", epoch, repo_id, why(error))


def _plot(output: Path) -> None:
    if importlib.util.find_spec("matplotlib") is not None:  # optional
        from .curves import plot_curves

        plot_curves(output / "metrics.jsonl", output / "curves.png")
