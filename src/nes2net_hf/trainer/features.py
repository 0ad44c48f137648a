"""Keeps a frozen encoder's output for a corpus on disk: computed once, then read in every epoch and experiment."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import tqdm
from safetensors.torch import load_file, save
from torch.utils.data import Dataset

from ..files import atomic_file, begin, claim, explained
from .batches import Broken
from .data import WindowDataset
from .losses import IGNORED
from .opening import holds_out, parts_of
from .recipe import Recipe, RecipeError


class FeatureSet(Dataset):
    """
    The items of a `WindowDataset` with the encoder's hidden states (K, T, D) instead of waveforms. K is the number of
    layers that the aggregation reads. The states are kept in half precision: 2 · K · T · D bytes per utterance.

    Args:
        dataset: a dataset whose items never change: no augmentation and no random crops.
        folder: where to keep the features.
        identity: what the features depend on. A folder with a different identity is refused.
    """

    def __init__(self, dataset: WindowDataset, folder: Path, identity: dict[str, Any]) -> None:
        self.dataset, self.folder = dataset, folder
        self._identity = {**identity, "count": len(dataset), "extractor": dataset.extractor.to_dict()}
        self.recipe, self.extractor, self.labels = dataset.recipe, dataset.extractor, dataset.labels
        self.lengths, self.by_length, self.excerpts = dataset.lengths, dataset.by_length, dataset.excerpts
        self.rows, self.names, self.sources = dataset.rows, dataset.names, dataset.sources

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor, int] | Broken:
        path = self._path(key[1])
        if not path.exists():  # the recording could not be read when the features were computed
            item = self.dataset[key]
            return item if isinstance(item, Broken) else Broken(f"{path} is missing: start training again to make it.")
        kept = load_file(path)
        return kept["hidden_states"], kept["label"], 0 if self.sources is None else int(self.sources[key[1]])

    def collate(self, items: list[tuple[torch.Tensor, torch.Tensor, int]]) -> dict[str, torch.Tensor]:
        """
        Returns `encoder_hidden_states` (B, K, T, D), `labels`, `attention_mask` (B, T) if lengths differ, and `corpus`
        (B,) if there are several.
        """
        frames = [states.shape[1] for states, *_ in items]
        longest = max(frames)
        states = torch.stack([_padded(states, longest, 1, 0) for states, *_ in items]).float()
        labels = torch.stack([_padded(label, longest, 0, IGNORED) if label.dim() else label for _, label, _ in items])
        batch = {"encoder_hidden_states": states, "labels": labels}
        if min(frames) < longest:
            batch["attention_mask"] = (torch.arange(longest) < torch.tensor(frames)[:, None]).long()
        if self.names:
            batch["corpus"] = torch.tensor([source for *_, source in items])
        return batch

    @torch.inference_mode()
    def store(self, accelerator: Accelerator, model: Any, batch_size: int) -> None:
        """
        Computes the missing features. Each process computes a share of them.

        Raises:
            OutputError: the folder holds features of another encoder or corpus.
            RecipeError: a value exceeds half precision.
        """
        self._settle(accelerator)
        todo = [row for row in self.by_length().tolist() if not self._path(row).exists()]
        accelerator.wait_for_everyone()  # so that all processes divide the same list
        if todo:
            with claim(self.folder, "workplace") if accelerator.is_main_process else nullcontext():
                self._make(todo, accelerator, model, batch_size)

    def _make(self, todo: list[int], accelerator: Accelerator, model: Any, batch_size: int) -> None:
        share = todo[accelerator.process_index :: accelerator.num_processes]
        plain = accelerator.unwrap_model(model).base_model.eval()
        starts = range(0, len(share), batch_size)
        for start in tqdm(starts, desc=f"features of {self.folder.name}", unit="batch", leave=False):
            rows = share[start : start + batch_size]
            items = [(row, self.dataset[0, row]) for row in rows]
            whole = [(row, item) for row, item in items if not isinstance(item, Broken)]
            if whole:
                batch = self.dataset.collate([item for _, item in whole])
                inputs = {
                    key: value.to(accelerator.device)
                    for key, value in batch.items()
                    if key not in ("labels", "corpus")
                }
                with accelerator.autocast():
                    _, states, _, mask = plain.encode(**inputs)
                for index, (row, item) in enumerate(whole):
                    frames = states[0].shape[1] if mask is None else int(mask[index].sum())
                    self._write(row, torch.stack([layer[index, :frames] for layer in states]), item[1])
        accelerator.wait_for_everyone()

    def _write(self, row: int, states: torch.Tensor, label: Any) -> None:
        half = states.to("cpu", torch.float16).contiguous()
        if not half.isfinite().all():
            raise RecipeError(
                f"data.features: the encoder's output for row {row} exceeds half precision: remove data.features, and "
                "the encoder will run in every step."
            )
        path = self._path(row)
        content = save({"hidden_states": half, "label": torch.tensor(np.asarray(label))})
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path, "wb") as file:
            file.write(content)

    def _settle(self, accelerator: Accelerator) -> None:
        record = self.folder / "what.json"
        if accelerator.is_main_process or record.exists():  # if it is there, all processes refuse alike
            begin(record, self._identity, "name another folder in data.features")
        accelerator.wait_for_everyone()

    def _path(self, row: int) -> Path:
        return self.folder / f"{row // 1000:05}" / f"{row:08}.safetensors"


def feature_set(recipe: Recipe, name: str, dataset: WindowDataset) -> FeatureSet:
    """Returns the kept features of the recipe's `train` or `dev`."""
    assert recipe.data.features is not None
    model, split = recipe.model, getattr(recipe.data, name)
    several = [[key, *vars(part).values()] for key, part in parts_of(recipe.data, name).items() if key]
    identity = {
        "encoder": [model.pretrained, model.revision, model.encoder, None if model.pretrained else recipe.seed],
        "layers": model.config.get("encoder_layers")
        or ("last" if model.config.get("layer_aggregation", "last") == "last" else "all"),
        "precision": recipe.mixed_precision,
        "corpus": [split.corpus or recipe.data.corpus, split.root or recipe.data.root, split.split],
        "rows": [split.condition, split.where, *([recipe.data.hold_out] if holds_out(recipe.data) else [])],
        "frames": model.head == "frames",
        **({"corpora": several} if several else {}),
    }
    return FeatureSet(dataset, Path(recipe.data.features) / name, identity)


def _padded(tensor: torch.Tensor, length: int, dimension: int, value: float) -> torch.Tensor:
    shape = list(tensor.shape)
    shape[dimension] = length - shape[dimension]
    return torch.cat([tensor, tensor.new_full(shape, value)], dim=dimension)
