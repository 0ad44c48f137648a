"""Averages the weights of several models of a run, including their batch-norm statistics."""

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
from ..modeling_nes2net import Nes2NetForAudioClassification
from ..pretrained.config_file import change_config
from .batch_norms import measure_batch_norms
from .checkpoints import write_folder
from .data import WindowDataset
from .opening import open_split
from .parts import training_stream
from .recipe import Recipe, RecipeError, load_kept
from .selection import ranked

WEIGHTS = "model.safetensors"


def kept_epochs(run: Path, count: int, best: bool) -> list[Path]:
    """
    Returns the folders of a run's `count` best or last kept epochs, in the order of training.

    Raises:
        RecipeError: the folder is not a run, or the run kept fewer epochs.
    """
    try:
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise RecipeError(f"{run} is not a run: {error.filename} cannot be read ({error.strerror}).") from None
    rules = load_kept(run / "recipe.yaml").validation
    names = {f"epoch-{line['epoch']:04}": line for line in lines}
    kept = [name for name in names if (run / "epochs" / name).is_dir()]
    if len(kept) < count:
        raise RecipeError(
            f"{run} kept {len(kept)} epochs, fewer than {count}: average fewer, or train with "
            "checkpoints.keep=best and a larger checkpoints.keep_best."
        )
    if best:
        kept = sorted(ranked({name: names[name][rules.select] for name in kept}, rules.ties)[:count])
    return [run / "epochs" / name for name in kept[-count:]]


def average_models(folders: Sequence[Path], out: Path, official: bool = False) -> None:
    """
    Writes a folder with the mean of the models in `folders`. Only the mean is held in memory in full.

    Args:
        folders: model folders of one architecture, in the order of training.
        out: the folder to write. Everything except the weights is copied from the last model. The configuration lists
            the averaged models (`averaged_from`). It has no threshold or calibration, because the scores change.
        official: reproduce the published averages. The official script computes (2·c2 + c3 + … + cN) / N for
            checkpoints c1 … cN: it loads each file into the tensors that hold the sum, so c1 is lost and c2 counts
            twice.

    Raises:
        RecipeError: there are fewer than two models, one has no weights, or their tensors differ.
    """
    if len(folders) < 2:
        raise RecipeError(f"an average needs at least two models, got {len(folders)}.")
    shares = [1.0] * len(folders)
    if official:
        shares[:2] = 0.0, 2.0
    for folder in folders:
        if not (folder / WEIGHTS).is_file():
            raise RecipeError(f"{folder} has no {WEIGHTS}: name model folders, e.g. a run's epochs/epoch-0007.")

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
                raise RecipeError(
                    f"{folder} and {folders[0]} have different tensors: average models of the same architecture."
                )
        for name in files[0].keys():  # noqa: SIM118 - not a dict
            tensors = [file.get_tensor(name) for file in files]
            if len({tensor.shape for tensor in tensors}) > 1:
                raise RecipeError(f"{name} differs in shape between models: average models of the same architecture.")
            if not tensors[-1].is_floating_point():
                means[name] = tensors[-1]  # batch counts are not averaged
                continue
            total = sum(share * tensor.double() for share, tensor in zip(shares, tensors))
            assert isinstance(total, Tensor)
            means[name] = (total / len(folders)).to(tensors[-1].dtype)
    return means


@torch.no_grad()
def recalibrate_batch_norm(folder: Path, recipe: Recipe, batches: int) -> None:
    """
    Recomputes a model's batch-norm statistics over the recipe's first `batches` training batches, equally weighted,
    and saves the model. An averaged model needs this: the mean of the statistics does not match the mean weights.

    Raises:
        RecipeError: the recipe's data cannot be opened.
    """
    model = Nes2NetForAudioClassification.from_pretrained(folder).eval()
    dataset = WindowDataset(open_split(recipe.data, "train", recipe.batch_size), recipe.data, "train", recipe.seed)
    stream = training_stream(recipe, dataset)
    measure_batch_norms(model, stream, batches)
    with atomic_folder(folder) as fresh:
        shutil.copytree(folder, fresh, dirs_exist_ok=True)
        model.eval().save_pretrained(fresh)
