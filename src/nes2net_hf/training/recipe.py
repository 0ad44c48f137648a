"""Recipes: dataclasses filled from YAML and `key=value` overrides; an unknown key is an error, never ignored."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml

from ..augmentation import AugmentationError, build_chain

T = TypeVar("T")


class RecipeError(ValueError):
    """A recipe that cannot be followed; the message is one sentence naming the key."""


@dataclass
class ModelRecipe:
    """`pretrained` names an encoder to start from; without it `encoder` describes a random one."""

    pretrained: str | None = None
    encoder: dict[str, Any] = field(default_factory=dict)  # the encoder's configuration, or overrides of it
    config: dict[str, Any] = field(default_factory=dict)  # fields of Nes2NetConfig


@dataclass
class SplitRecipe:
    """What of a corpus is read, as `load_corpus` takes it; corpus and root are those of `data` where not given."""

    corpus: str | None = None
    root: str | None = None
    split: str | None = None
    condition: str | None = None
    where: dict[str, Any] = field(default_factory=dict)
    columns: dict[str, Any] = field(default_factory=dict)
    label_map: dict[Any, Any] = field(default_factory=dict)


@dataclass
class DataRecipe:
    """A corpus (a benchmark, your own data, a dataset, or shards of one), and the policy of length."""

    corpus: str = "own-data"
    root: str = "data.csv"
    train: SplitRecipe = field(default_factory=SplitRecipe)
    dev: SplitRecipe = field(default_factory=SplitRecipe)
    allow_missing: bool = False  # leave out utterances without audio
    max_broken: int = 10  # training utterances that may be skipped because they cannot be read, in each process
    window_length: int = 64_600  # samples; also the extractor's, so that detection windows as training did
    crop_length: int | None = None  # samples of a training window where it is to be shorter than window_length
    crop: str = "random"  # of longer training utterances: random | first
    normalize: bool = False  # each window to zero mean and unit variance
    augmentation: list[dict[str, Any]] = field(default_factory=list)  # of training utterances: augmentation/chain.py
    workers: int = 0


@dataclass
class OptimiserRecipe:
    """AdamW with a linear warm-up and a cosine down to zero, both per step."""

    learning_rate: float = 1e-4
    weight_decay: float = 1e-4
    warmup_steps: int = 0
    max_gradient_norm: float | None = None


@dataclass
class Recipe:
    """Everything a training run depends on."""

    output: str = "runs/nes2net"
    seed: int = 12345
    epochs: int = 1
    batch_size: int = 12  # utterances over all processes
    mixed_precision: str = "no"  # no | bf16 | fp16
    model: ModelRecipe = field(default_factory=ModelRecipe)
    data: DataRecipe = field(default_factory=DataRecipe)
    optimiser: OptimiserRecipe = field(default_factory=OptimiserRecipe)

    def save(self, path: Path) -> None:
        """Writes the resolved recipe as YAML, to be read by `load_recipe` again."""
        path.write_text(yaml.safe_dump(dataclasses.asdict(self), sort_keys=False), encoding="utf-8")


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """
    Reads a recipe and applies overrides such as `"optimiser.learning_rate=1e-4"` (values are YAML).

    Raises:
        RecipeError: the file is missing or no YAML mapping, a key is unknown, or a value has a wrong type.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: the recipe cannot be read ({error.strerror}).") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: not a YAML file ({' '.join(str(error).split())}).") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{path}: a recipe is a YAML mapping of keys to values.")
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator:
            raise RecipeError(f"{override!r}: an override has the form key=value, e.g. data.root=demo-corpus.")
        *sections, name = key.split(".")
        place = content
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise RecipeError(f"{key}: {section!r} is a value, not a section of the recipe.")
        place[name] = yaml.safe_load(value)
    recipe = _fill(Recipe, content, "")
    _check(recipe)
    return recipe


def _fill(kind: type[T], content: dict[str, Any], prefix: str) -> T:
    """A dataclass from a mapping, sections within sections."""
    types = get_type_hints(kind)
    values = {}
    for key, value in content.items():
        if key not in types:
            near = difflib.get_close_matches(str(key), types, n=1)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"it may be {', '.join(types)}."
            raise RecipeError(f"{prefix}{key}: no such key in a recipe; {hint}")
        if dataclasses.is_dataclass(types[key]):
            if not isinstance(value, dict):
                raise RecipeError(f"{prefix}{key}: a section of keys is needed, got {value!r}.")
            values[key] = _fill(types[key], value, f"{prefix}{key}.")
        else:
            values[key] = _typed(types[key], value, f"{prefix}{key}")
    return kind(**values)


def _typed(kind: Any, value: Any, key: str) -> Any:
    """The value as `kind`; YAML reads 1e-4 as text and 1 as an integer where a float is meant."""
    kinds = getattr(kind, "__args__", (kind,)) if not hasattr(kind, "__origin__") else (kind,)
    for one in kinds:
        plain = getattr(one, "__origin__", one)
        if plain is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
            try:
                return float(value)
            except ValueError:
                continue
        if isinstance(value, plain) and not (plain is int and isinstance(value, bool)):
            return value
    names = " or ".join("null" if one is type(None) else getattr(one, "__name__", str(one)) for one in kinds)
    raise RecipeError(f"{key}: must be {names}, got {value!r}.")


def _check(recipe: Recipe) -> None:
    for key, value, choices in (
        ("mixed_precision", recipe.mixed_precision, ("no", "bf16", "fp16")),
        ("data.crop", recipe.data.crop, ("random", "first")),
    ):
        if value not in choices:
            raise RecipeError(f"{key}: must be one of {', '.join(choices)}, got {value!r}.")
    for key, number in (("epochs", recipe.epochs), ("batch_size", recipe.batch_size)):
        if number < 1:
            raise RecipeError(f"{key}: must be at least 1, got {number}.")
    if recipe.data.crop_length is not None and not 400 <= recipe.data.crop_length <= recipe.data.window_length:
        raise RecipeError(
            f"data.crop_length: must lie between 400 and window_length {recipe.data.window_length} samples, "
            f"got {recipe.data.crop_length}."
        )
    try:
        build_chain(recipe.data.augmentation)
    except AugmentationError as error:
        raise RecipeError(f"data.augmentation: {error}") from error
    if not recipe.model.pretrained and not recipe.model.encoder.get("model_type"):
        raise RecipeError("model.encoder.model_type: name it (e.g. wav2vec2), or an encoder in model.pretrained.")
