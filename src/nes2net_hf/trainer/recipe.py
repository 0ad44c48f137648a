"""
Recipes: dataclasses filled from YAML and `key=value` overrides. An unknown key is an error.

`_fill` checks values by the types and bounds declared with the keys. Pydantic's dataclasses do not fit: strict mode
rejects a mapping for a section, lax mode accepts text for a number, and their messages would need rewriting anyway.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from ..augmentation import AugmentationError, build_chain, step_names
from ..errors import RecipeError
from ..files import check_same_work

T = TypeVar("T")


class Bound(NamedTuple):
    """A condition on a value, in words and as a function."""

    said: str
    holds: Callable[[Any], bool]


Count = Annotated[int, Bound("at least 1", lambda value: value >= 1)]
Number = Annotated[int, Bound("at least 0", lambda value: value >= 0)]
NotNegative = Annotated[float, Bound("at least 0", lambda value: value >= 0)]
Positive = Annotated[float, Bound("positive", lambda value: value > 0)]
Share = Annotated[float, Bound("between 0 and 1", lambda value: 0 < value < 1)]


@dataclass
class LoraRecipe:
    """Low-rank adapters (Hu et al. 2022) in the encoder's linear layers. The rest of the encoder is frozen."""

    rank: int = 8
    alpha: int = 16  # the adapters' scale is alpha / rank
    dropout: float = 0.0
    targets: list[str] = field(default_factory=lambda: ["intermediate_dense", "output_dense"])  # layer names


@dataclass
class ModelRecipe:
    """
    `pretrained` names an encoder to start from, or a whole Nes2Net model to train further. Without it, `encoder`
    describes an encoder with random weights. A Nes2Net model sets the keys here and in `data` that its weights depend
    on: see `trainer/starting.py`.
    """

    pretrained: str | None = None
    revision: str | None = None
    encoder: dict[str, Any] = field(default_factory=dict)  # the encoder's configuration, or changes to it
    config: dict[str, Any] = field(default_factory=dict)  # fields of Nes2NetConfig
    head: Literal["utterance", "frames"] | None = None  # frames: 20 ms each, from the corpus's segment labels
    lora: LoraRecipe | None = None  # needs the package peft; saved models have the adapters merged in
    freeze: Literal["nothing", "feature_encoder", "encoder"] = "nothing"  # feature_encoder: its convolutions
    freeze_epochs: Number = 0  # also freeze the whole encoder in the first epochs; they take as long as the others
    gradient_checkpointing: bool = False  # saves memory, takes a third more time
    compile: bool = False  # torch.compile: some minutes at the start, then faster steps
    synchronize_batch_norm: bool = False  # statistics over all processes, not over each one's share of the batch


@dataclass
class SplitRecipe:
    """The part of a corpus to read: arguments of `load_corpus`. corpus and root default to those of `data`."""

    corpus: str | None = None
    root: str | None = None
    split: str | None = None
    condition: str | None = None
    where: dict[str, Any] = field(default_factory=dict)
    columns: dict[str, Any] = field(default_factory=dict)
    label_map: dict[Any, Any] = field(default_factory=dict)


@dataclass
class DataRecipe:
    """The corpus (a benchmark, your own data, a dataset, or shards of these), and how to prepare its waveforms."""

    corpus: str = "own-data"
    root: str = "data.csv"
    train: SplitRecipe = field(default_factory=SplitRecipe)
    dev: SplitRecipe = field(default_factory=SplitRecipe)
    allow_missing: bool = False  # skip utterances without audio
    max_broken: Number = 10  # how many unreadable training utterances each process may skip
    # Null means the value that the model in model.pretrained was trained with, or else the default in SETTINGS.
    window_length: int | None = None  # samples; saved in the feature extractor, so that detection uses the same window
    crop_length: int | None = None  # samples of a training window, if shorter than window_length
    # How to cut longer training utterances. Whole utterances form padded batches of similar length.
    crop: Literal["random", "first", "whole"] = "random"
    # How shorter training utterances fill the window: repeated from the start, or repeated (as few times as fill it)
    # and then cropped at random like longer ones.
    repeat_from: Literal["start", "random"] = "start"
    # What dev, and later detection, uses of an utterance: the first window, or all of it.
    evaluate: Literal["window", "whole"] | None = None
    normalize: bool | None = None  # scale each window to zero mean and unit variance
    normalize_eps: float | None = None  # added to the variance
    min_samples: int | None = None  # shortest utterance
    # The share of the rows that becomes dev, unless a column of the data decides: see holding_out.py.
    hold_out: Share | None = None
    features: str | None = None  # folder to keep a frozen encoder's output for each utterance
    augmentation: list[dict[str, Any]] = field(default_factory=list)  # see augmentation/chain.py
    workers: Number = 0


@dataclass
class LossRecipe:
    """Cross entropy weighted by model.config.class_weights, or binary focal loss for a head with one logit."""

    name: Literal["cross_entropy", "focal"] = "cross_entropy"
    gamma: NotNegative = 2.0  # focal: larger values reduce the weight of well-classified utterances
    alpha: Positive = 0.25  # focal: factor of the whole loss
    targets: list[float] = field(default_factory=lambda: [0.05, 0.95])  # focal: smoothed, of spoof and bona fide
    resolutions: list[int] = field(default_factory=lambda: [20])  # frame head: in ms; the loss is the mean over them
    whole_utterance: bool = False  # frame head: the utterance as an additional resolution, the coarsest


@dataclass
class OptimiserRecipe:
    """Adam (its weight decay is L2, as in the published recipes) or AdamW (decoupled)."""

    name: Literal["adam", "adamw"] = "adamw"
    learning_rate: Positive = 1e-4
    weight_decay: NotNegative = 1e-4
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    encoder_learning_rate: Positive | None = None  # if different from learning_rate
    layer_decay: Positive = 1.0  # factor from the rate of each encoder layer to that of the layer below
    max_gradient_norm: Positive | None = None


@dataclass
class ScheduleRecipe:
    """How the learning rate changes, after a linear warm-up."""

    # cosine: falls once, with each step. cosine_epochs: falls and rises again, with each epoch.
    name: Literal["constant", "cosine", "cosine_epochs"] = "constant"
    warmup_steps: Number = 0
    final_learning_rate: NotNegative = 0.0  # at the bottom of the cosine
    period: Count | None = None  # cosine_epochs: epochs from top to bottom


@dataclass
class ValidationRecipe:
    """When to evaluate dev, and how to select the best epoch."""

    # The epoch with the lowest value is best. dev_min_dcf has the costs of ASVspoof 5.
    select: Literal["dev_eer", "dev_min_dcf", "dev_loss", "dev_loss_augmented"] = "dev_eer"
    ties: Literal["first", "later"] = "first"  # which of two equal epochs is better; a better one restarts patience
    augmented: bool = False  # also evaluate dev with the training augmentation
    # global: the weighted mean over all utterances. batch_means: dev in the order of its protocol is cut into batches,
    # and the loss is the plain mean of their weighted means. The incomplete last batch counts like the others.
    loss: Literal["global", "batch_means"] = "global"
    loss_batch: Count | None = None  # batch_means: utterances per batch; how many are judged at a time does not matter
    # cosine_minima (with cosine_epochs): the first epoch, and the epochs around all minima except the first.
    epochs: Literal["all", "cosine_minima"] = "all"
    first_epoch: Count = 1  # evaluate no earlier epoch, except the last one of a shorter run
    patience: Count | None = None  # stop training after this many validations without improvement
    batch_size: Count | None = None  # utterances per pass on each process; null means twice that of training


@dataclass
class CheckpointRecipe:
    """What to keep: `checkpoints/` to resume from, and models in `epochs/` to use or average."""

    every_steps: Count | None = None  # within an epoch; each epoch also ends with one
    every_minutes: Positive | None = 30.0
    keep_last: Count = 2
    # records: only epochs with the lowest value yet of the criterion in validation.select, on dev as it is or, if
    # evaluated, on augmented dev. With either, only the best keep_best of them stay.
    keep: Literal["best", "records"] = "best"
    keep_best: Count = 5


@dataclass
class Recipe:
    """Everything a training run depends on."""

    output: str = "runs/nes2net"
    seed: int = 12345
    epochs: Count = 1
    batch_size: Count = 12  # utterances per optimiser step, over all processes and passes
    passes: Count = 1  # passes per step on each process (gradient accumulation): more passes need less memory
    keep_last_batch: bool = False  # also train on an epoch's incomplete last batch
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    trackers: list[str] = field(default_factory=lambda: ["tensorboard"])  # of accelerate: wandb, mlflow, trackio, …
    model: ModelRecipe = field(default_factory=ModelRecipe)
    data: DataRecipe = field(default_factory=DataRecipe)
    loss: LossRecipe = field(default_factory=LossRecipe)
    optimiser: OptimiserRecipe = field(default_factory=OptimiserRecipe)
    schedule: ScheduleRecipe = field(default_factory=ScheduleRecipe)
    validation: ValidationRecipe = field(default_factory=ValidationRecipe)
    checkpoints: CheckpointRecipe = field(default_factory=CheckpointRecipe)

    def as_yaml(self) -> str:
        """Returns the resolved recipe as YAML that `load_recipe` can read."""
        return yaml.safe_dump(dataclasses.asdict(self), sort_keys=False)


# Defaults of the keys that a recipe may leave open. A pretrained Nes2Net model overrides them.
SETTINGS: dict[str, Any] = {
    "model.head": "utterance",
    "data.window_length": 64_600,
    "data.evaluate": "window",
    "data.normalize": False,
    "data.normalize_eps": 1e-5,
    "data.min_samples": 400,
}


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """
    Reads a recipe and applies overrides such as `"optimiser.learning_rate=1e-4"` (values are YAML). If
    `model.pretrained` is set, keys in `SETTINGS` that the recipe does not set stay open until `starting.settle`.

    Raises:
        RecipeError: the file is missing or not a YAML mapping, a key is unknown, or a value has the wrong type.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: the recipe cannot be read ({error.strerror}).") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: not a YAML file ({' '.join(str(error).split())}).") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{path}: not a recipe: it must be a YAML mapping of keys to values.")
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator:
            raise RecipeError(f"{override!r}: an override has the form key=value, e.g. data.root=/data/asvspoof2019.")
        *sections, name = key.split(".")
        place = content
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise RecipeError(f"{key}: {section!r} is a value, not a section of the recipe.")
        place[name] = yaml.safe_load(value)
    recipe = _fill(Recipe, content, "")
    if not recipe.model.pretrained:
        settle_with(recipe, SETTINGS)
    check(recipe)
    return recipe


def load_kept(path: Path) -> Recipe:
    """Loads a run's own recipe, with no key open. Recipes of 0.1.0 lack some keys, which get their defaults."""
    recipe = load_recipe(path)
    settle_with(recipe, SETTINGS)
    return recipe


def settle_with(recipe: Recipe, settings: Mapping[str, Any]) -> None:
    """Sets each open key to its value in `settings`."""
    for key, value in settings.items():
        section, _, name = key.partition(".")
        if value_of(recipe, key) is None:
            setattr(getattr(recipe, section), name, value)


# Keys that may change when a run is resumed, because they do not affect the weights.
_FREE = (
    "data.workers",
    "data.features",
    "data.root",
    "data.max_broken",
    "checkpoints",
    "trackers",
    "output",
    "validation.batch_size",
)


def check_same(path: Path, recipe: Recipe) -> None:
    """
    Checks that a run can continue with this recipe.

    Raises:
        OutputError: the recipe in `path`, with which the run began, differs; the message names the first key.
    """
    check_same_work(path.parent, _fixed(load_kept(path)), _fixed(recipe))


def _fixed(recipe: Recipe) -> dict[str, Any]:
    """Returns the keys that must not change during a run, with their values."""
    flat = _flat(dataclasses.asdict(recipe))
    return {key: flat[key] for key in flat if not any(key == free or key.startswith(f"{free}.") for free in _FREE)}


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return flat


def _fill(kind: type[T], content: dict[str, Any], prefix: str) -> T:
    """Builds a dataclass from a mapping, section by section."""
    types = get_type_hints(kind, include_extras=True)
    values = {}
    for key, value in content.items():
        if key not in types:
            near = difflib.get_close_matches(str(key), types, n=1)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"choose one of {', '.join(types)}."
            raise RecipeError(f"{prefix}{key}: recipes have no such key; {hint}")
        section = _section(types[key])
        if section is not None and not (value is None and section is not types[key]):
            if not isinstance(value, dict):
                raise RecipeError(f"{prefix}{key}: must be a section of keys, got {value!r}.")
            values[key] = _fill(section, value, f"{prefix}{key}.")
        else:
            values[key] = _typed(types[key], value, f"{prefix}{key}")
    return kind(**values)


def _section(kind: Any) -> Any:
    """Returns the dataclass in a key's type, or None."""
    return next((one for one in (kind, *get_args(kind)) if dataclasses.is_dataclass(one)), None)


def _typed(kind: Any, value: Any, key: str) -> Any:
    """Returns the value as `kind`. YAML reads 1e-4 as text, `no` as false, and 1 as an integer even for a float."""
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    for one in kinds:
        one, *bounds = get_args(one) if get_origin(one) is Annotated else (one,)
        plain = get_origin(one) or one
        if value is False and plain in (str, Literal):
            value = "no"
        if plain is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
            with suppress(ValueError):
                value = float(value)
        if plain is Literal:
            fits = value in get_args(one)
        else:
            fits = isinstance(value, plain) and not (plain is int and isinstance(value, bool))
        if fits:
            for bound in bounds:
                if not bound.holds(value):
                    raise RecipeError(f"{key}: must be {bound.said}, got {value}.")
            return value
    choices = [choice for one in kinds if get_origin(one) is Literal for choice in get_args(one)]
    if choices:
        raise RecipeError(f"{key}: must be one of {', '.join(choices)}, got {value!r}.")
    raise RecipeError(f"{key}: must be {' or '.join(map(_named, kinds))}, got {value!r}.")


def _named(kind: Any) -> str:
    """Returns a type's name for messages."""
    kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    return "null" if kind is type(None) else getattr(kind, "__name__", str(kind))


def value_of(recipe: Recipe, key: str) -> Any:
    """Returns the value of a dotted key, e.g. `"optimiser.learning_rate"`."""
    place: Any = recipe
    for name in key.split("."):
        place = getattr(place, name)
    return place


def check(recipe: Recipe) -> None:
    """Raises RecipeError for the first key that contradicts another. Open keys are not checked."""
    data = recipe.data
    longest = data.window_length or data.crop_length
    if data.crop_length is not None and longest and not 400 <= data.crop_length <= longest:
        raise RecipeError(
            f"data.crop_length: must be from 400 to data.window_length, {data.window_length} samples, "
            f"got {data.crop_length}."
        )
    if data.repeat_from == "random" and data.crop != "random":
        raise RecipeError(f"data.repeat_from: random needs data.crop=random, got {data.crop}: set it, or use start.")
    try:
        build_chain(data.augmentation)
    except AugmentationError as error:
        raise RecipeError(f"data.augmentation: {error}") from error
    if not recipe.model.pretrained and not recipe.model.encoder.get("model_type"):
        raise RecipeError(
            "model.encoder.model_type: missing: set it, e.g. to wav2vec2, or name an encoder in model.pretrained."
        )
    for key, pair in (("loss.targets", recipe.loss.targets), ("optimiser.betas", recipe.optimiser.betas)):
        if len(pair) != 2 or not all(isinstance(value, (int, float)) and 0 <= value <= 1 for value in pair):
            raise RecipeError(f"{key}: must be two numbers between 0 and 1, got {pair}.")
    if recipe.model.head == "frames":
        _check_frames(recipe)
    if recipe.data.features is not None:
        _check_features(recipe)
    if recipe.model.lora is not None and recipe.model.freeze == "encoder":
        raise RecipeError("model.freeze: encoder also freezes the adapters of model.lora: remove one of the two.")
    if recipe.model.freeze_epochs and recipe.model.freeze == "encoder":
        raise RecipeError(
            f"model.freeze_epochs: {recipe.model.freeze_epochs} has no effect if model.freeze=encoder freezes the "
            "encoder in all epochs: remove one of the two."
        )
    if (
        recipe.model.head is not None
        and recipe.loss.name == "focal"
        and (recipe.model.config.get("classifier_outputs", 2) != 1)
    ):
        raise RecipeError("loss.name: focal needs a head with one logit: set model.config.classifier_outputs=1.")
    if recipe.schedule.name == "cosine_epochs" and recipe.schedule.period is None:
        raise RecipeError("schedule.period: schedule.name=cosine_epochs needs a period: set it, in epochs.")
    if recipe.validation.epochs == "cosine_minima" and recipe.schedule.name != "cosine_epochs":
        raise RecipeError("validation.epochs: cosine_minima needs schedule.name=cosine_epochs: set it, or use all.")
    if (recipe.validation.loss == "batch_means") != (recipe.validation.loss_batch is not None):
        raise RecipeError(
            f"validation.loss_batch: {recipe.validation.loss_batch} does not fit validation.loss="
            f"{recipe.validation.loss}: set it, in utterances, for batch_means, and only then."
        )
    if recipe.validation.select == "dev_loss_augmented" and not recipe.validation.augmented:
        raise RecipeError("validation.select: dev_loss_augmented needs validation.augmented=true: set it.")


def _check_features(recipe: Recipe) -> None:
    """Raises RecipeError if the encoder or the waveforms change between epochs."""
    if recipe.model.freeze != "encoder":
        raise RecipeError("data.features: the features change while the encoder learns: set model.freeze=encoder.")
    if recipe.data.augmentation or recipe.data.crop == "random":
        raise RecipeError(
            "data.features: augmentation and random crops change the waveforms in every epoch: set "
            "data.augmentation=[] and data.crop=first (or whole)."
        )


def _check_frames(recipe: Recipe) -> None:
    wrong = [value for value in recipe.loss.resolutions if not isinstance(value, int) or value < 20 or value % 20]
    if wrong or not recipe.loss.resolutions:
        raise RecipeError(f"loss.resolutions: must be multiples of 20 ms, got {recipe.loss.resolutions}.")
    if recipe.loss.name == "focal":
        raise RecipeError("loss.name: focal does not work with model.head=frames: use cross_entropy.")
    if recipe.validation.loss == "batch_means":
        raise RecipeError("validation.loss: batch_means does not work with model.head=frames: use global.")
    if "speed" in step_names(recipe.data.augmentation):
        raise RecipeError("data.augmentation: speed shifts frames away from their labels: remove it.")
