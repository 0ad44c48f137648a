"""Convert an official checkpoint to a folder for `from_pretrained`, `pipeline` and `nes2net detect --model`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..configuration_nes2net import Nes2NetConfig
from ..errors import ConversionError, OutputError
from ..feature_extraction_nes2net import Nes2NetFeatureExtractor
from ..files import atomic_folder
from ..modeling_nes2net import Nes2NetForAudioClassification
from .card import write_card
from .checks import check_keys, settle_encoder_config
from .download import fetch
from .encoders import convert_encoder, is_bare_encoder
from .key_map import official_key, official_shape
from .reading import Checkpoint, apart, read_checkpoint
from .recognition import Recognised, recognise
from .systems import System
from .torch_files import is_legacy_pickle
from .verification import verify_folder

Report = Callable[[str], None]


@dataclass
class Converted:
    """A converted checkpoint in memory: our configuration, and the checkpoint's tensors without copies."""

    checkpoint: Checkpoint
    recognised: Recognised
    config: Nes2NetConfig
    extractor: Nes2NetFeatureExtractor
    tensors: dict[str, Tensor]
    dropped: list[str] = field(default_factory=list)

    def model(self) -> Nes2NetForAudioClassification:
        """Returns the model, which uses the checkpoint's own tensors."""
        model = _without_weights(self.config)
        model.load_state_dict(self.tensors, strict=True, assign=True)
        return model.eval()


def convert(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str] | None,
    *,
    revision: str | None = None,
    encoder_config: str | os.PathLike[str] | None = None,
    activation: str | None = None,
    dilation: int | None = None,
    force: bool = False,
    verify: str | os.PathLike[str] | None = None,
    report: Report = lambda line: None,
) -> Converted | None:
    """
    Converts an official system, or a bare encoder as the official instructions download it.

    Args:
        source: a `.pth`, `.pt` or `.safetensors` file, or a file on the Hub as `org/repo:file.pth`.
        out: the folder to write; None does everything except writing.
        revision: revision of the file on the Hub.
        encoder_config: file or folder with the encoder's configuration; XLS-R 300M's or WavLM-Large's if None.
        activation: `"relu"` or `"selu"`; recognised from the batch norms if None.
        dilation: dilation of the back-end; the recipe's if None.
        force: replace `out` if it exists.
        verify: a recording; the written folder, loaded in a fresh process, must give the same logits for it.
        report: called with each line that says what is found, assumed or done.

    Returns:
        The converted system; None for a bare encoder.

    Raises:
        ConversionError: the file cannot be read, is not an official system, has wrong keys, or fails `verify`.
        OutputError, DiskError: `out` exists or cannot be written.
    """
    target = None if out is None else _target(Path(out), force)
    path, is_on_hub = fetch(os.fspath(source), revision)
    checkpoint = read_checkpoint(path)
    if is_legacy_pickle(path):
        report("note      the file has the format of torch before 1.6, so all of it is read into memory")
    if checkpoint.outside:
        report(f"dropped   {len(checkpoint.outside)} keys outside the system ({', '.join(checkpoint.outside[:3])} …)")
    if is_bare_encoder(checkpoint.tensors):
        if any(option is not None for option in (activation, dilation, verify)):
            raise ConversionError(
                f"{path} is a bare encoder: activation, dilation and verify only apply to whole systems."
            )
        with _written(target, report) as folder:
            convert_encoder(checkpoint, folder, encoder_config, report)
        return None
    converted = prepare(checkpoint, encoder_config, activation, dilation, report)
    with _written(target, report) as folder:
        if folder is not None:
            write(converted, folder, os.fspath(source) if is_on_hub else None)
            if verify is not None:
                report(verify_folder(converted.model().float(), converted.extractor, folder, Path(verify)))
    return converted


def prepare(
    checkpoint: Checkpoint,
    encoder_config: str | os.PathLike[str] | None = None,
    activation: str | None = None,
    dilation: int | None = None,
    report: Report = lambda line: None,
) -> Converted:
    """
    Recognises a system and maps its keys to ours.

    Raises:
        ConversionError: it is not an official system, or a key is missing, unexpected or mis-shaped.
    """
    try:
        recognised = recognise(checkpoint.tensors, activation, dilation)
        system = recognised.system
        encoder = settle_encoder_config(system, recognised, encoder_config)
        config = Nes2NetConfig(encoder_config=encoder, **recognised.config)
    except ValueError as error:
        raise ConversionError(f"{checkpoint.path}: {error}") from None
    _report_findings(recognised, config, report)
    tensors, dropped = map_tensors(checkpoint, system, config)
    if dropped:
        report(f"dropped   {len(dropped)} keys used only in pre-training, or never ({', '.join(dropped[:3])} …)")
    extractor = Nes2NetFeatureExtractor(
        window_length=system.window_length, length_policy=system.length_policy, do_normalize=system.do_normalize
    )
    return Converted(checkpoint, recognised, config, extractor, tensors, dropped)


def map_tensors(checkpoint: Checkpoint, system: System, config: Nes2NetConfig) -> tuple[dict[str, Tensor], list[str]]:
    """Returns each of our keys → the official tensor in our shape; and the dropped keys."""
    ours = _without_weights(config).state_dict()
    expected = {official_key(key, config, system.encoder_prefix): key for key in ours}
    dropped = [key for key in checkpoint.tensors if system.is_dropped(key)]
    shapes = {name: official_shape(key, tuple(ours[key].shape), config) for name, key in expected.items()}
    check_keys(checkpoint, shapes, set(dropped))
    tensors = {key: checkpoint.tensors[name].reshape(ours[key].shape) for name, key in expected.items()}
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not ours[key].is_floating_point():
            tensors[key] = tensor.round().to(ours[key].dtype)  # averaged checkpoints have fractional counts
    return tensors, dropped


def write(converted: Converted, folder: Path, source: str | None) -> None:
    """Writes configuration, weights, feature extractor, model code and card; `source` is its name on the Hub."""
    model = _without_weights(converted.config)
    # One file, written directly from the mapped tensors.
    model.save_pretrained(folder, state_dict=apart(converted.tensors), max_shard_size="1TB")
    converted.extractor.save_pretrained(folder)
    write_card(
        folder,
        config=converted.config,
        system=converted.recognised.system,
        source=source,
        file_name=converted.checkpoint.path.name,
        sha256=converted.checkpoint.sha256,
        assumed=converted.recognised.assumed,
    )


def _without_weights(config: Nes2NetConfig) -> Nes2NetForAudioClassification:
    """Returns the model on the meta device: its parameters have shapes but no memory."""
    with torch.device("meta"):
        return Nes2NetForAudioClassification(config)


def _report_findings(recognised: Recognised, config: Nes2NetConfig, report: Report) -> None:
    encoder = config.encoder_config
    report(f"system    {recognised.system.title}")
    report(
        f"encoder   {encoder.model_type}, {encoder.num_hidden_layers} layers of {encoder.hidden_size} features, "
        f"aggregation {config.layer_aggregation}"
    )
    report(
        f"back-end  {config.backend_variant}, scales {config.outer_scale} x {config.inner_scale}, kernel "
        f"{config.kernel_size}, dilation {config.dilation}, {config.hidden_act}, SE reduction {config.se_reduction}"
        f"{', split attention' if config.split_attention else ''}"
    )
    report(f"head      {config.pooling} pooling, {config.classifier_outputs} logit(s), score {config.score}")
    system = recognised.system
    length = "whole utterance" if system.length_policy == "whole" else f"first {system.window_length:,} samples"
    report(f"input     {length}, {'layer-normalised' if system.do_normalize else 'not normalised'}, as in the recipe")
    for what, how in recognised.assumed.items():
        report(f"assumed   {what}: {how}")


def _target(out: Path, force: bool) -> Path:
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file: name a folder to write.")
    is_filled = out.is_dir() and any(out.iterdir())
    if is_filled and not force:
        raise OutputError(f"{out} exists: choose another folder, or replace it with --force.")
    if is_filled and not (out / "config.json").is_file():
        raise OutputError(f"{out} has no model: --force only replaces model folders, so choose another folder.")
    if not out.absolute().parent.is_dir():
        raise OutputError(f"{out.parent} does not exist: create the folder first.")
    return out


@contextmanager
def _written(target: Path | None, report: Report) -> Iterator[Path | None]:
    """Yields a temporary folder that replaces the target on success and is deleted on failure; None for no target."""
    if target is None:
        yield None
        report("nothing was written (dry run)")
        return
    with atomic_folder(target) as fresh:
        yield fresh
    report(f"written   {target}")
