"""`nes2net info`."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from .console import as_utf8, be_quiet, ending
from .options import MODEL, Json, Revision

_LABEL, _WIDTH = 12, 120  # columns


def info(
    model: Annotated[str | None, typer.Argument(help=MODEL, show_default="bundled demonstration model")] = None,
    revision: Revision = None,
    as_json: Json = False,
) -> int:
    """
    Describe a model: architecture, size, threshold, calibration, recipe, metrics, licence, checksums.

    Exit codes:
      0    the model was described
      1    standard output cannot be written
      2    the model cannot be loaded, or a file of its folder cannot be read
      130  interrupted
    """
    with ending() as end:
        from nes2net_hf.errors import InfoError
        from nes2net_hf.pretrained.info import describe

        be_quiet()
        as_utf8(sys.stdout)
        try:
            described = describe(model, revision)
        except OSError as error:
            raise InfoError(f"{error.filename or model} cannot be read: {error.strerror or error}.") from None
        if as_json:
            print(json.dumps(described, ensure_ascii=False, default=str))  # YAML has dates
        else:
            print("\n".join(_lines(described)))
    return end.code


def _lines(info: dict[str, Any]) -> Iterator[str]:
    yield from _field("model", info["model"] + (f" at commit {info['commit']}" if info["commit"] else ""))
    for label, text in _architecture(info):
        yield from _field(label, text)
    yield from _costs(info)
    for label, texts in (
        ("threshold", [_threshold(info)]),
        ("calibrated", _calibration(info["calibration"])),
        ("averaged", [f"from {', '.join(info['averaged_from'])}"] if info["averaged_from"] else []),
        ("recipe", [_recipe(info["recipe"])] if info["recipe"] else ["none in its folder or the one above"]),
        ("measured", _measured(info)),
        ("licence", [_license(info)]),
    ):
        for number, text in enumerate(texts):
            yield from _field(label if number == 0 else "", text)
    yield from _field("machine", _machine(info["machine"]))
    files = info["files"]
    yield from _field("files", f"{len(files)}, {sum(file['bytes'] for file in files):,} bytes; SHA-256, bytes, name")
    for file in files:
        yield f"{file['sha256']} {file['bytes']:>14,}  {file['name']}"


def _field(label: str, text: str) -> list[str]:
    indent = " " * _LABEL
    return textwrap.wrap(
        text, _WIDTH, initial_indent=f"{label:<{_LABEL}}", subsequent_indent=indent, break_on_hyphens=False
    )


def _architecture(info: dict[str, Any]) -> Iterator[tuple[str, str]]:
    from nes2net_hf.cards import variant_title

    what, encoder, extractor = info["architecture"], info["encoder"], info["feature_extractor"]
    rate, window = extractor["sampling_rate"], extractor["window_length"]
    variant = variant_title(what["backend_variant"])
    form = "as an ONNX graph" if info["weights"] == "onnx" else "with PyTorch weights"
    yield "what", f"{variant}, judges {info['judges']}, {form}"
    yield (
        "encoder",
        f"{encoder['model_type']}, {encoder['num_hidden_layers']} layer(s) of {encoder['hidden_size']} features, "
        f"aggregation {what['layer_aggregation']}"
        + (f" of {', '.join(map(str, what['encoder_layers']))}" if what["encoder_layers"] else ""),
    )
    yield (
        "back-end",
        f"{what['backend_variant']}, scales {what['outer_scale']} x {what['inner_scale']}, kernel "
        f"{what['kernel_size']}, dilation {what['dilation']}, {what['hidden_act']}, SE reduction "
        f"{what['se_reduction']}{', split attention' if what['split_attention'] else ''}",
    )
    pooling = f"{what['pooling']} pooling"
    if info["judges"] == "frames":
        pooling = f"no pooling, frames of {1000 * info['frame_samples'] / rate:g} ms"
    yield "head", f"{pooling}, {what['classifier_outputs']} logit(s), score {what['score']}, higher = bona fide"
    length = f"{window:,} samples ({window / rate:.2f} s)"
    heard = f"the first {length}, shorter recordings repeated"
    if extractor["length_policy"] == "whole":
        heard = f"whole utterances; nes2net detect uses windows of {length}"
    normalised = f"zero mean, unit variance (eps {extractor['normalize_eps']:g})"
    yield "input", f"{rate:,} Hz, {heard}, {normalised if extractor['do_normalize'] else 'not normalised'}"


def _costs(info: dict[str, Any]) -> Iterator[str]:
    from nes2net_hf.pretrained.info import WINDOW

    seconds = WINDOW / info["feature_extractor"]["sampling_rate"]
    yield f"{'size':<{_LABEL}}{'':<13}{'parameters':>13}{f'MMACs at {seconds:.2f} s':>18}"
    for part, parameters in info["parameters"].items():
        yield f"{'':<{_LABEL}}{part:<13}{parameters:>13,}{info['macs'][part] / 1e6:>18,.2f}"
    if info["weights"] == "onnx":
        yield from _field("", "of the PyTorch model that the graph was exported from")


def _machine(machine: dict[str, Any]) -> str:
    times = ", ".join(f"{dtype} {speed:g}" for dtype, speed in machine["speeds"].items() if dtype != "float32")
    return f"{machine['processor']}; times as fast as float32: {times} (see nes2net detect --dtype)"


def _threshold(info: dict[str, Any]) -> str:
    if info["threshold"] is None:
        return "none of its own: nes2net detect decides at log-odds of 0"
    return f"bona fide at a score of {info['threshold']:.6g} or higher"


def _calibration(calibration: dict[str, Any] | None) -> Iterator[str]:
    if calibration is None:
        yield "no: its scores are not log-likelihood ratios"
        return
    scale, offset, prior = (calibration[key] for key in ("scale", "offset", "prior"))
    yield (
        f"llr = {scale:.6g} * score {'-' if offset < 0 else '+'} {abs(offset):.6g}, at a prior probability of "
        f"spoofing of {prior:g}"
    )
    if (share := calibration.get("undecided")) is not None:
        yield f"accepted share of errors {share:g}; other scores are undecided"
    for kind, words in (("bonafide", "bona fide"), ("spoof", "spoofed")):
        if of_kind := (calibration.get("population") or {}).get(kind):
            counts = [f"{value:,} {key}" for key, value in of_kind.items() if isinstance(value, int)]
            yield f"on {words} speech: {', '.join(counts)} (nes2net info --json has more)"
    if calibration.get("provenance"):
        yield "fit: " + _listed(calibration["provenance"])


def _listed(fields: dict[str, Any]) -> str:
    """`{"corpus": "own-data", "where": {"partition": ["dev"]}}` → `corpus own-data, where partition dev`."""
    return ", ".join(f"{key} {_plain(value)}" for key, value in fields.items())


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return " and ".join(f"{key} {_plain(one)}" for key, one in value.items())
    return " or ".join(map(str, value)) if isinstance(value, list) else str(value)


def _recipe(recipe: dict[str, Any]) -> str:
    augmentation = _value(recipe, "data.augmentation")
    augmentation = augmentation if isinstance(augmentation, list) else []
    mixed = _value(recipe, "data.train.corpora")
    corpora = map(str, mixed) if isinstance(mixed, dict) else []
    fields = {
        "output": _value(recipe, "output"),
        "corpus": " and ".join(corpora) or _value(recipe, "data.corpus"),
        "encoder": _value(recipe, "model.pretrained") or _value(recipe, "model.encoder.model_type"),
        "epochs": _value(recipe, "epochs"),
        "batch size": _value(recipe, "batch_size"),
        "optimiser": _value(recipe, "optimiser.name"),
        "learning rate": _value(recipe, "optimiser.learning_rate"),
        "loss": _value(recipe, "loss.name"),
        "augmentation": ", then ".join(str(_value(one, "name")) for one in augmentation),
    }
    return _listed({key: value for key, value in fields.items() if value not in (None, "")})


def _value(content: Any, key: str) -> Any:
    """Returns the value under a dotted key, or None."""
    for name in key.split("."):
        content = content.get(name) if isinstance(content, dict) else None
    return content


def _measured(info: dict[str, Any]) -> list[str]:
    """Returns a line for each figures file in the folder, or else the results in the card's metadata."""
    lines = [
        f"{one['name']}: EER {_rate(one)}, min DCF {_number(one['min_dcf'])}, Cllr {_number(one['cllr'])} bits, on "
        f"{one['n_bonafide']:,} bona fide and {one['n_spoof']:,} spoofed"
        for one in info["evaluations"]
    ]
    if not lines and info["card"] is not None:
        lines = [f"{one['dataset']}: {one['metric']} {one['value']}, from its card" for one in info["card"]["results"]]
    robustness = info["robustness"]
    if robustness is not None and robustness["worst"] is not None:
        place = _listed({key: robustness[key] for key in ("split", "where") if robustness[key]})
        corpus = ", ".join(filter(None, [robustness["corpus"], place]))
        clean, worst = robustness["clean"], robustness["worst"]
        lines.append(
            f"robustness, {corpus}: {f'EER {_rate(clean)} on unchanged audio; ' if clean else ''}worst of "
            f"{robustness['conditions']} conditions: EER {_rate(worst)} ({worst['group']}, {worst['condition']})"
        )
    return lines or ["nothing that its folder records"]


def _rate(row: dict[str, Any]) -> str:
    """Returns an EER, with its interval if there is one."""
    if row["eer"] is None:
        return "unknown"
    rate = f"{100 * row['eer']:.2f} %"
    if row["low"] is None or row["high"] is None:
        return rate
    return f"{rate} ({100 * row['low']:.2f} to {100 * row['high']:.2f} by {row['unit']})"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"


def _license(info: dict[str, Any]) -> str:
    if info["card"] is None:
        place = "among the downloaded files" if info["commit"] else "in its folder"
        return f"not known: there is no card (README.md) {place}"
    license = info["card"]["license"]
    return _plain(license) if license else "not known: its card does not name one"
