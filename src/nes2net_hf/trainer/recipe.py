"""Recipes: dataclasses filled from YAML and `key=value` overrides; an unknown key is an error, never ignored."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml

from ..augmentation import AugmentationError, build_chain
from ..errors import RecipeError

T = TypeVar("T")


@dataclass
class LoraRecipe:
    """Low-rank adapters (Hu et al. 2022) in the encoder's linear layers, which then are all of it that learns."""

    rank: int = 8
    alpha: int = 16  # the adapters' scale is alpha / rank
    dropout: float = 0.0
    targets: list[str] = field(default_factory=lambda: ["intermediate_dense", "output_dense"])  # names of layers


@dataclass
class ModelRecipe:
    """
    `pretrained` names an encoder to start from, or a whole Nes2Net model to train further; without it `encoder`
    describes a random encoder. A Nes2Net model brings what its weights were trained with, here and in `data`: see
    `training/starting.py`.
    """

    pretrained: str | None = None
    revision: str | None = None
    encoder: dict[str, Any] = field(default_factory=dict)  # the encoder's configuration, or overrides of it
    config: dict[str, Any] = field(default_factory=dict)  # fields of Nes2NetConfig
    head: str | None = None  # utterance | frames (of 20 ms, by the corpus's segment labels); null: as below
    lora: LoraRecipe | None = None  # needs the package peft; what is saved is an ordinary model, adapters added in
    freeze: str = "nothing"  # nothing | feature_encoder (its convolutions) | encoder
    gradient_checkpointing: bool = False  # less memory, a third more time
    compile: bool = False  # torch.compile: minutes at the start, faster steps
    synchronize_batch_norm: bool = False  # statistics over all processes instead of each one's share of the batch


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
    # Null until it is settled: what the model in model.pretrained was trained with, else SETTINGS.
    window_length: int | None = None  # samples; also the extractor's, so that detection windows as training did
    crop_length: int | None = None  # samples of a training window where it is to be shorter than window_length
    crop: str = "random"  # of longer training utterances: random | first | whole (batches of like length, padded)
    evaluate: str | None = None  # what dev and, later, the model judge: window (the first one) | whole (utterances)
    normalize: bool | None = None  # each window to zero mean and unit variance
    normalize_eps: float | None = None  # added to the variance
    min_samples: int | None = None  # shortest utterance
    # The share of train and dev's common rows that is dev, where the data has no column that says so: data.py.
    hold_out: float | None = None
    features: str | None = None  # of a frozen encoder: a folder that keeps what it makes of each utterance
    augmentation: list[dict[str, Any]] = field(default_factory=list)  # of training utterances: augmentation/chain.py
    workers: int = 0


@dataclass
class LossRecipe:
    """Cross entropy weighted by model.config.class_weights, or the binary focal loss of a head of one logit."""

    name: str = "cross_entropy"  # cross_entropy | focal
    gamma: float = 2.0  # focal: how much less well-classified utterances count
    alpha: float = 0.25  # focal: factor of the whole
    targets: list[float] = field(default_factory=lambda: [0.05, 0.95])  # focal: smoothed, of spoof and bona fide
    resolutions: list[int] = field(default_factory=lambda: [20])  # of a head of frames: ms; the loss is their mean
    whole_utterance: bool = False  # of a head of frames: the utterance as one more, the coarsest resolution


@dataclass
class OptimiserRecipe:
    """Adam (its weight decay is L2, as in the published recipes) or AdamW (decoupled)."""

    name: str = "adamw"  # adam | adamw
    learning_rate: float = 1e-4
    weight_decay: float = 1e-4
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    encoder_learning_rate: float | None = None  # of the encoder, where it is to differ
    layer_decay: float = 1.0  # factor of the rate from each encoder layer to the one below
    max_gradient_norm: float | None = None


@dataclass
class ScheduleRecipe:
    """How the learning rate moves, after a linear warm-up."""

    name: str = "constant"  # constant | cosine (per step, once down) | cosine_epochs (per epoch, down and up again)
    warmup_steps: int = 0
    final_learning_rate: float = 0.0  # at the bottom of the cosine
    period: int | None = None  # cosine_epochs: epochs from top to bottom


@dataclass
class ValidationRecipe:
    """When dev is judged, and which epoch is the best."""

    select: str = "dev_eer"  # the lowest of: dev_eer | dev_loss | dev_loss_augmented
    augmented: bool = False  # judge dev through the training augmentation, too
    epochs: str = "all"  # all | cosine_minima (of cosine_epochs: the first, those about all minima but the first one)
    patience: int | None = None  # validations without a better one before training stops
    batch_size: int | None = None  # utterances of a pass on each process; twice that of training if null


@dataclass
class CheckpointRecipe:
    """What is kept: `checkpoints/` to resume from, `epochs/` to use or average."""

    every_steps: int | None = None  # between the ends of epochs, where there is always one
    every_minutes: float | None = 30.0
    keep_last: int = 2
    keep_best: int = 5


@dataclass
class Recipe:
    """Everything a training run depends on."""

    output: str = "runs/nes2net"
    seed: int = 12345
    epochs: int = 1
    batch_size: int = 12  # utterances of an optimiser step, over all processes and passes
    passes: int = 1  # that a process makes for a step (gradient accumulation), for less memory
    keep_last_batch: bool = False  # train on an epoch's ragged last batch
    mixed_precision: str = "no"  # no | bf16 | fp16
    trackers: list[str] = field(default_factory=lambda: ["tensorboard"])  # of accelerate: wandb, mlflow, trackio, …
    model: ModelRecipe = field(default_factory=ModelRecipe)
    data: DataRecipe = field(default_factory=DataRecipe)
    loss: LossRecipe = field(default_factory=LossRecipe)
    optimiser: OptimiserRecipe = field(default_factory=OptimiserRecipe)
    schedule: ScheduleRecipe = field(default_factory=ScheduleRecipe)
    validation: ValidationRecipe = field(default_factory=ValidationRecipe)
    checkpoints: CheckpointRecipe = field(default_factory=CheckpointRecipe)

    def as_yaml(self) -> str:
        """The resolved recipe, to be read by `load_recipe` again."""
        return yaml.safe_dump(dataclasses.asdict(self), sort_keys=False)


# What a recipe leaves open, and no Nes2Net model settles.
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
    Reads a recipe and applies overrides such as `"optimiser.learning_rate=1e-4"` (values are YAML). Where
    `model.pretrained` is set, settings that the recipe does not name stay open until `starting.settle`.

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
    """The recipe that a run keeps, in which nothing is open. Those of 0.1.0 lack what was then always the default."""
    recipe = load_recipe(path)
    settle_with(recipe, SETTINGS)
    return recipe


def settle_with(recipe: Recipe, settings: Mapping[str, Any]) -> None:
    """Gives each key that is still open its value in `settings`."""
    for key, value in settings.items():
        section, _, name = key.partition(".")
        if value_of(recipe, key) is None:
            setattr(getattr(recipe, section), name, value)


# What may change between a checkpoint and its resumption: it moves no weight.
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
    Whether a run can go on with this recipe.

    Raises:
        RecipeError: another one, in `path`, began it; the message names the first key that differs.
    """
    before, now = _flat(dataclasses.asdict(load_kept(path))), _flat(dataclasses.asdict(recipe))
    for key in {**before, **now}:
        if before.get(key) != now.get(key) and not any(key == free or key.startswith(f"{free}.") for free in _FREE):
            raise RecipeError(
                f"{key}: the run in {path.parent} began with {before.get(key)!r}, this recipe says {now.get(key)!r}: "
                "resume with the same recipe, or name another output."
            )


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return flat


def _fill(kind: type[T], content: dict[str, Any], prefix: str) -> T:
    """A dataclass from a mapping, sections within sections."""
    types = get_type_hints(kind)
    values = {}
    for key, value in content.items():
        if key not in types:
            near = difflib.get_close_matches(str(key), types, n=1)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"it may be {', '.join(types)}."
            raise RecipeError(f"{prefix}{key}: no such key in a recipe; {hint}")
        section = _section(types[key])
        if section is not None and not (value is None and section is not types[key]):
            if not isinstance(value, dict):
                raise RecipeError(f"{prefix}{key}: a section of keys is needed, got {value!r}.")
            values[key] = _fill(section, value, f"{prefix}{key}.")
        else:
            values[key] = _typed(types[key], value, f"{prefix}{key}")
    return kind(**values)


def _section(kind: Any) -> Any:
    """The dataclass that a key's type is, or may be."""
    return next((one for one in (kind, *getattr(kind, "__args__", ())) if dataclasses.is_dataclass(one)), None)


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
        if plain is str and value is False:
            return "no"  # which YAML takes for a false
        if isinstance(value, plain) and not (plain is int and isinstance(value, bool)):
            return value
    names = " or ".join("null" if one is type(None) else getattr(one, "__name__", str(one)) for one in kinds)
    raise RecipeError(f"{key}: must be {names}, got {value!r}.")


_CHOICES = {
    "mixed_precision": ("no", "bf16", "fp16"),
    "model.head": ("utterance", "frames"),
    "model.freeze": ("nothing", "feature_encoder", "encoder"),
    "data.crop": ("random", "first", "whole"),
    "data.evaluate": ("window", "whole"),
    "loss.name": ("cross_entropy", "focal"),
    "optimiser.name": ("adam", "adamw"),
    "schedule.name": ("constant", "cosine", "cosine_epochs"),
    "validation.select": ("dev_eer", "dev_loss", "dev_loss_augmented"),
    "validation.epochs": ("all", "cosine_minima"),
}
_LEAST = {
    "epochs": 1, "batch_size": 1, "passes": 1, "checkpoints.keep_last": 1, "checkpoints.keep_best": 1,
    "data.max_broken": 0, "data.workers": 0, "schedule.warmup_steps": 0, "schedule.final_learning_rate": 0,
    "optimiser.weight_decay": 0, "loss.gamma": 0, "checkpoints.every_steps": 1, "schedule.period": 1,
    "validation.patience": 1, "validation.batch_size": 1,
}  # fmt: skip


def value_of(recipe: Recipe, key: str) -> Any:
    """The value under a dotted key, e.g. `"optimiser.learning_rate"`."""
    place: Any = recipe
    for name in key.split("."):
        place = getattr(place, name)
    return place


def check(recipe: Recipe) -> None:
    """Raises RecipeError naming the first key that is impossible or contradicts another; open ones pass."""
    for key, choices in _CHOICES.items():
        if value_of(recipe, key) not in (choices if key not in SETTINGS else (*choices, None)):
            raise RecipeError(f"{key}: must be one of {', '.join(choices)}, got {value_of(recipe, key)!r}.")
    for key, least in _LEAST.items():
        value = value_of(recipe, key)
        if value is not None and value < least:
            raise RecipeError(f"{key}: must be at least {least}, got {value}.")
    for key in ("optimiser.learning_rate", "optimiser.encoder_learning_rate", "optimiser.layer_decay", "loss.alpha",
                "optimiser.max_gradient_norm", "checkpoints.every_minutes"):  # fmt: skip
        value = value_of(recipe, key)
        if value is not None and not value > 0:
            raise RecipeError(f"{key}: must be positive, got {value}.")
    data = recipe.data
    longest = data.window_length or data.crop_length
    if data.crop_length is not None and longest and not 400 <= data.crop_length <= longest:
        raise RecipeError(
            f"data.crop_length: must lie between 400 and window_length {data.window_length} samples, "
            f"got {data.crop_length}."
        )
    if data.hold_out is not None and not 0 < data.hold_out < 1:
        raise RecipeError(f"data.hold_out: must lie between 0 and 1, got {data.hold_out}.")
    try:
        build_chain(data.augmentation)
    except AugmentationError as error:
        raise RecipeError(f"data.augmentation: {error}") from error
    if not recipe.model.pretrained and not recipe.model.encoder.get("model_type"):
        raise RecipeError("model.encoder.model_type: name it (e.g. wav2vec2), or an encoder in model.pretrained.")
    for key, pair in (("loss.targets", recipe.loss.targets), ("optimiser.betas", recipe.optimiser.betas)):
        if len(pair) != 2 or not all(isinstance(value, (int, float)) and 0 <= value <= 1 for value in pair):
            raise RecipeError(f"{key}: must be two numbers between 0 and 1, got {pair}.")
    if recipe.model.head == "frames":
        _check_frames(recipe)
    if recipe.data.features is not None:
        _check_features(recipe)
    if recipe.model.lora is not None and recipe.model.freeze == "encoder":
        raise RecipeError("model.freeze: encoder leaves model.lora nothing to learn: leave one of them out.")
    if (
        recipe.model.head is not None
        and recipe.loss.name == "focal"
        and (recipe.model.config.get("classifier_outputs", 2) != 1)
    ):
        raise RecipeError("loss.name: focal is the loss of one logit: set model.config.classifier_outputs to 1.")
    if recipe.schedule.name == "cosine_epochs" and recipe.schedule.period is None:
        raise RecipeError("schedule.period: cosine_epochs needs it, in epochs.")
    if recipe.validation.epochs == "cosine_minima" and recipe.schedule.name != "cosine_epochs":
        raise RecipeError("validation.epochs: cosine_minima are those of schedule.name cosine_epochs.")
    if recipe.validation.select == "dev_loss_augmented" and not recipe.validation.augmented:
        raise RecipeError("validation.select: dev_loss_augmented needs validation.augmented.")


def _check_features(recipe: Recipe) -> None:
    """Kept features stand for what an encoder makes of the same waveform in every epoch."""
    if recipe.model.freeze != "encoder":
        raise RecipeError(
            "data.features: an encoder that learns makes others in every step: set model.freeze=encoder."
        )
    if recipe.data.augmentation or recipe.data.crop == "random":
        raise RecipeError(
            "data.features: augmentation and random crops make other waveforms in every epoch: set "
            "data.augmentation=[] and data.crop=first, or whole."
        )


def _check_frames(recipe: Recipe) -> None:
    wrong = [value for value in recipe.loss.resolutions if not isinstance(value, int) or value < 20 or value % 20]
    if wrong or not recipe.loss.resolutions:
        raise RecipeError(f"loss.resolutions: must be multiples of 20 ms, got {recipe.loss.resolutions}.")
    if recipe.loss.name == "focal":
        raise RecipeError("loss.name: a head of frames is trained by cross_entropy.")
    moving = [step["name"] for step in recipe.data.augmentation if step["name"] == "speed"]
    if moving:
        raise RecipeError("data.augmentation: speed moves frames away from their labels: leave it out.")
