"""Averages of a run's models: their weights, batch-norm statistics included, are the mean of several models'."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..files import atomic_folder
from ..modeling_nes2net import MaskedBatchNorm, Nes2NetForAudioClassification
from ..pretrained.config_file import change_config
from .batches import BatchStream
from .checkpoints import write_folder
from .data import WindowDataset, open_split
from .recipe import Recipe, RecipeError, load_kept

WEIGHTS = "model.safetensors"


def kept_epochs(run: Path, count: int, best: bool) -> list[Path]:
    """
    Folders of a run's `count` best or last kept epochs, in the order of training.

    Raises:
        RecipeError: the folder is no run, or the run has kept fewer.
    """
    try:
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise RecipeError(f"{run} is no run: {error.filename} cannot be read ({error.strerror}).") from None
    select = load_kept(run / "recipe.yaml").validation.select
    folders = {run / "epochs" / f"epoch-{line['epoch']:04}": line for line in lines}
    kept = [folder for folder in folders if folder.is_dir()]
    if len(kept) < count:
        raise RecipeError(f"{run} has kept {len(kept)} epochs, fewer than {count}: see checkpoints.keep_best.")
    return sorted(sorted(kept, key=lambda folder: folders[folder][select])[:count] if best else kept[-count:])


def average_models(folders: Sequence[Path], out: Path, official: bool = False) -> None:
    """
    Writes a folder with the mean of the models in `folders`. Of all models, only the mean is whole in memory.

    Args:
        folders: as `from_pretrained` takes them, of one architecture, in the order of training.
        out: the folder to write; everything but the weights comes from the last model. Its configuration names its
            parts (`averaged_from`), and has no threshold and no calibration, because its scores are new.
        official: compute what the official averaging computes of c1 … cN: (2·c2 + c3 + … + cN) / N. It loads each file
            into the tensors that it sums in, so that the first is lost and the second counts twice. The published
            averages were made so.

    Raises:
        RecipeError: there are fewer than two models, one lacks weights, or their tensors differ.
    """
    if len(folders) < 2:
        raise RecipeError(f"an average needs at least two models, got {len(folders)}.")
    shares = [1.0] * len(folders)
    if official:
        shares[:2] = 0.0, 2.0
    for folder in folders:
        if not (folder / WEIGHTS).is_file():
            raise RecipeError(f"{folder} holds no {WEIGHTS}: name folders of models, e.g. a run's epochs/epoch-0007.")

    def write(place: Path) -> None:
        shutil.copytree(folders[-1], place, dirs_exist_ok=True, ignore=shutil.ignore_patterns(WEIGHTS, "README.md"))
        save_file(_means(folders, shares), place / WEIGHTS, {"format": "pt"})
        change_config(place, threshold=None, calibration=None, averaged_from=[folder.name for folder in folders])

    write_folder(out, write)


def _means(folders: Sequence[Path], shares: Sequence[float]) -> dict[str, Tensor]:
    means: dict[str, Tensor] = {}
    with ExitStack() as stack:
        files = [stack.enter_context(safe_open(folder / WEIGHTS, framework="pt")) for folder in folders]
        names = set(files[0].keys())
        for folder, file in zip(folders, files):
            if set(file.keys()) != names:
                raise RecipeError(f"{folder} has other tensors than {folders[0]}: average models of one architecture.")
        for name in files[0].keys():  # noqa: SIM118 - no dict
            tensors = [file.get_tensor(name) for file in files]
            if len({tensor.shape for tensor in tensors}) > 1:
                raise RecipeError(f"{name} has not the same shape in all models: average models of one architecture.")
            if not tensors[-1].is_floating_point():
                means[name] = tensors[-1]  # a count of batches has no mean
                continue
            total = sum(share * tensor.double() for share, tensor in zip(shares, tensors))
            assert isinstance(total, Tensor)
            means[name] = (total / len(folders)).to(tensors[-1].dtype)
    return means


@torch.no_grad()
def recalibrate_batch_norm(folder: Path, recipe: Recipe, batches: int) -> None:
    """
    Measures the batch-norm statistics of a model again, over the first `batches` training batches of the recipe, all
    with equal weight, and writes them into its folder. An average needs it: its statistics are not the mean of theirs.

    Raises:
        RecipeError: the recipe's data cannot be opened.
    """
    model = Nes2NetForAudioClassification.from_pretrained(folder).eval()
    rows = open_split(recipe.data, "train", recipe.batch_size)
    dataset = WindowDataset(rows, recipe.data, "train", recipe.seed)
    stream = BatchStream(
        dataset, rows.group_sizes, recipe.batch_size, dataset.collate, seed=recipe.seed,
        workers=recipe.data.workers, max_broken=recipe.data.max_broken,
    )  # fmt: skip
    norms = [module for module in model.modules() if isinstance(module, MaskedBatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
    for number, batch in zip(range(batches), stream):
        for norm in norms:
            norm.momentum = 1 / (number + 1)
        del batch["labels"]
        model(**batch)
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
    with atomic_folder(folder) as fresh:
        shutil.copytree(folder, fresh, dirs_exist_ok=True)
        model.eval().save_pretrained(fresh)
