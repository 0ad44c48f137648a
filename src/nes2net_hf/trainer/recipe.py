"""Recipes: dataclasses filled from YAML and `key=value` overrides. An unknown key is an error."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from ..audio import SAMPLING_RATE
from ..errors import RecipeError
from ..files import check_same_work
from .checks import check
from .filling import Count, NotNegative, Number, Positive, Share, fill


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
    thaw_layers: Count | None = None  # then thaw so many of its layers per epoch, from the top; null means all at once
    gradient_checkpointing: bool = False  # saves memory, takes a third more time
    compile: bool = False  # torch.compile: some minutes at the start, then faster steps
    synchronize_batch_norm: bool = False  # statistics over all processes, not over each one's share of the batch


@dataclass
class CorpusRecipe:
    """The part of a corpus to read: arguments of `load_corpus`."""

    corpus: str | None = None
    root: str | None = None
    split: str | None = None
    condition: str | None = None
    where: dict[str, Any] = field(default_factory=dict)
    columns: dict[str, Any] = field(default_factory=dict)
    label_map: dict[Any, Any] = field(default_factory=dict)


@dataclass
class MixedRecipe(CorpusRecipe):
    """One corpus of several. Its corpus defaults to its name, and its root to a folder of this name in `data.root`."""

    weight: Positive | None = None  # data.train with mixing.weights=given: its share, relative to the sum of all


@dataclass
class SplitRecipe(CorpusRecipe):
    """One corpus, or several by name. corpus and root default to those of `data`."""

    corpora: dict[str, MixedRecipe] = field(default_factory=dict)


@dataclass
class MixingRecipe:
    """How many utterances of each corpus, class, attack and speaker an epoch of training has. See mixtures.py."""

    # given: each corpus has a weight. utterances, hours: the larger a corpus, the larger its share.
    weights: Literal["given", "utterances", "hours"] = "utterances"
    temperature: Positive = 1.0  # shares are proportional to size ** (1 / temperature): a high one makes them equal
    # class: of each corpus, as many bona fide utterances as spoofs. attack, speaker: also as many of each attack, or
    # of each speaker in a class. Missing names count as one.
    balance: Literal["nothing", "class", "attack", "speaker"] = "nothing"
    utterances: Count | None = None  # per epoch; null means as many as the corpora have together


@dataclass
class LengthRange:
    """Each excerpt has a length of its own in each epoch, drawn evenly between both ends."""

    min: Positive
    max: Positive
    unit: Literal["s", "samples"] = "s"

    @property
    def shortest(self) -> int:
        """The shorter end, in samples."""
        return round(self.min * (SAMPLING_RATE if self.unit == "s" else 1))

    @property
    def longest(self) -> int:
        """The longer end, in samples."""
        return round(self.max * (SAMPLING_RATE if self.unit == "s" else 1))


@dataclass
class DataRecipe:
    """The corpus (a benchmark, your own data, a dataset, or shards of these), and how to prepare its waveforms."""

    corpus: str = "own-data"
    root: str = "data.csv"
    train: SplitRecipe = field(default_factory=SplitRecipe)
    dev: SplitRecipe = field(default_factory=SplitRecipe)
    mixing: MixingRecipe = field(default_factory=MixingRecipe)
    allow_missing: bool = False  # skip utterances without audio
    max_broken: Number = 10  # how many unreadable training utterances each process may skip
    # Null means the value that the model in model.pretrained was trained with, or else the default in SETTINGS.
    # Samples; saved in the feature extractor, so that detection uses the same window. A range, for example
    # {min: 1, max: 50, unit: s}, gives excerpts of random length. It needs batch_seconds; detection uses its maximum.
    window_length: int | LengthRange | None = None
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

    @property
    def longest_window(self) -> int | None:
        """The window of detection in samples; None if it is open."""
        return self.window_length.longest if isinstance(self.window_length, LengthRange) else self.window_length


@dataclass
class LossRecipe:
    """
    Cross entropy or AM-Softmax weighted by model.config.class_weights; or, for a head with one logit, binary focal
    loss or OC-Softmax. AM-Softmax and OC-Softmax need a cosine classifier: set model.config.cosine_scale, e.g. to 20.
    """

    name: Literal["cross_entropy", "focal", "am_softmax", "oc_softmax"] = "cross_entropy"
    gamma: NotNegative = 2.0  # focal: larger values reduce the weight of well-classified utterances
    alpha: Positive = 0.25  # focal: factor of the whole loss
    targets: list[float] = field(default_factory=lambda: [0.05, 0.95])  # focal: smoothed, of spoof and bona fide
    margin: NotNegative = 0.35  # am_softmax: how much higher the cosine of an utterance's own class should be
    margins: list[float] = field(default_factory=lambda: [0.2, 0.9])  # oc_softmax: cosines that spoofs should stay
    # below, and bona fide speech above
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
    sam_rho: Positive | None = None  # radius of sharpness-aware minimisation, e.g. 0.05; a step takes twice the time


@dataclass
class AverageRecipe:
    """
    Dev is evaluated, and models are saved, with an average of the weights during training. ema: an exponential moving
    average, updated in each step (batch-norm statistics too). swa: the plain mean of the weights at the end of each
    epoch (Izmailov et al. 2018); batch-norm statistics are measured again.
    """

    name: Literal["ema", "swa"]
    decay: Share = 0.999  # ema: the part of the old average that each step keeps
    first_epoch: Count = 1  # swa: the first epoch in the mean; until then, the weights are used as they are
    batch_norm_batches: Count = 100  # swa: training batches to measure batch-norm statistics on


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

    # The epoch with the lowest value is best. dev_min_dcf has the costs of ASVspoof 5. dev_eer_mean is the mean over
    # the corpora of dev; the others are computed from all utterances together.
    select: Literal["dev_eer", "dev_eer_mean", "dev_min_dcf", "dev_loss", "dev_loss_augmented"] = "dev_eer"
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
    batch_seconds: Positive | None = None  # seconds of audio per step instead: fewer utterances if they are longer
    passes: Count = 1  # passes per step on each process (gradient accumulation): more passes need less memory
    keep_last_batch: bool = False  # also train on an epoch's incomplete last batch
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    trackers: list[str] = field(default_factory=lambda: ["tensorboard"])  # of accelerate: wandb, mlflow, trackio, …
    model: ModelRecipe = field(default_factory=ModelRecipe)
    data: DataRecipe = field(default_factory=DataRecipe)
    loss: LossRecipe = field(default_factory=LossRecipe)
    optimiser: OptimiserRecipe = field(default_factory=OptimiserRecipe)
    schedule: ScheduleRecipe = field(default_factory=ScheduleRecipe)
    average: AverageRecipe | None = None
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
    recipe = fill(Recipe, content, "")
    if not recipe.model.pretrained:
        settle_by_default(recipe)
    check(recipe)
    return recipe


def load_kept(path: Path) -> Recipe:
    """Loads a run's own recipe, with no key open. Recipes of 0.1.0 lack some keys, which get their defaults."""
    recipe = load_recipe(path)
    settle_by_default(recipe)
    return recipe


def settle_by_default(recipe: Recipe) -> None:
    """Sets each open key to its default. Without a fixed window, dev and detection use whole utterances."""
    if isinstance(recipe.data.window_length, LengthRange):
        settle_with(recipe, {"data.evaluate": "whole"})
    settle_with(recipe, SETTINGS)


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


def value_of(recipe: Recipe, key: str) -> Any:
    """Returns the value of a dotted key, e.g. `"optimiser.learning_rate"`."""
    place: Any = recipe
    for name in key.split("."):
        place = getattr(place, name)
    return place
