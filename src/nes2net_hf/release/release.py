"""Writes a folder with everything that belongs to a model, tests it, and sends it to the Hub."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from huggingface_hub import HfApi

from ..corpus_facts import read_corpus_facts, training_corpora
from ..errors import ModelError, OutputError
from ..files import atomic_folder, explained
from ..hub import bounded_requests, make_repository, send_folder, why
from ..page.space import write_space
from ..pretrained.bases import BASE, Base, check_license, describe_base, folder_license, read_base, spdx, write_base
from ..pretrained.familiarity import copy_familiarity
from ..pretrained.fingerprint import fingerprint
from ..pretrained.load import load_model
from ..version import __version__
from .card import CardEvaluation, ReleaseError, write_card
from .contents import check_contents, without_paths
from .trial import Tried, samples, score, try_folder

_PICTURES = ("breakdown", "det", "attacks", "calibration", "scores")  # in the order of the card


_EMISSIONS = ("duration", "emissions", "energy_consumed", "country_name", "cpu_model", "gpu_count", "gpu_model")


# The file that a Hugging Face inference endpoint looks for in a model's folder.
_HANDLER = "from nes2net_hf.endpoint import EndpointHandler  # noqa: F401\n"


@dataclass
class Release:
    """
    What to release.

    Args:
        source: the folder of a run, whose `best/` is released, or the folder of a model.
        repo_id: `ORG/NAME` on the Hub.
        benchmark: name in `model_cards/benchmarks`; the card quotes its published figures. None for your own data.
        license: SPDX id of the licence.
        license_file: text of the licence, if the package does not include it.
        dtype: precision of the weights: float32, bfloat16 or float16.
        evaluations: pairs of the name of the data and the `figures.json` that `nes2net evaluate --report` wrote.
        robustness: folder that `nes2net robustness` wrote.
        audit: folder that `nes2net audit` wrote, with this model.
        datasets: Hub ids of the training data.
    """

    source: Path
    repo_id: str
    benchmark: str | None
    license: str
    license_file: Path | None = None
    dtype: str = "float32"
    evaluations: Sequence[tuple[str, Path]] = ()
    robustness: Path | None = None
    audit: Path | None = None
    datasets: Sequence[str] = field(default_factory=list)


def write_release(release: Release, folder: Path, force: bool = False) -> Tried:
    """
    Writes the folder and tests it. A folder that fails is removed.

    Args:
        folder: must not exist. With `force`, it is replaced once the new one is complete.

    Raises:
        ReleaseError: something is missing, cannot be read or must not be sent, or the scores differ from the source's.
        ModelError: the source cannot be loaded.
        OutputError, DiskError: the folder exists, or cannot be written.
    """
    with _written(folder, force) as fresh:
        expected = _gather(release, fresh)
        check_contents(fresh)
        return try_folder(fresh, expected)


def write_release_space(repo_id: str, folder: Path, force: bool = False) -> None:
    """
    Writes a Space that serves the page of `nes2net demo` for the released model.

    Raises:
        OutputError, DiskError: the folder exists and `force` is False, or it cannot be written.
    """
    with _written(folder, force) as fresh:
        write_space(fresh, repo_id)


def data_warnings(release: Release) -> list[str]:
    """Returns a sentence for each training corpus that may restrict who may get the weights, or how."""
    _, run = model_folder(release.source)
    recipe = {} if run is None else yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8")) or {}
    known = {name: read_corpus_facts().get(name) for name in (training_corpora(recipe) if recipe else [])}
    allows_sales = "-NC-" not in spdx(release.license)
    return [
        f"--license {release.license}: these weights were trained on {facts.title}. Its licence is "
        f"{facts.licence_said}. {facts.weights_said}"
        for facts in known.values()
        if facts is not None and (facts.weights == "unclear" or (facts.weights == "non-commercial" and allows_sales))
    ]


@contextmanager
def _written(folder: Path, force: bool) -> Iterator[Path]:
    if folder.exists() and not force:
        raise OutputError(f"{folder} exists: remove it, name another --out, or add --force to replace it.")
    with explained(folder):
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as fresh:
        yield fresh


def push(folder: Path, repo_id: str, public: bool, *, space: bool = False) -> str:
    """
    Sends the folder as `push_folder` does. Returns the address of the repository.

    Args:
        space: whether it is a Space instead of a model.

    Raises:
        ReleaseError: the Hub refuses the token or cannot be reached, or the repository is public without `public`.
    """
    kind = "space" if space else "model"
    try:
        address = make_repository(repo_id, kind, public)
        with bounded_requests():
            is_private = HfApi().repo_info(repo_id, repo_type=kind).private
        if not public and not is_private:
            raise ReleaseError(
                f"{repo_id} is on the Hub already, and public: pass --public, or name another --repo-id."
            )
        send_folder(folder, repo_id, "Release by nes2net release", kind)
        return address
    except ReleaseError:
        raise
    except Exception as error:  # the HTTP client of huggingface_hub, and its errors, depend on its version
        raise ReleaseError(f"{repo_id} could not be sent: {_refusal(error, repo_id)}.") from None


def model_folder(source: Path) -> tuple[Path, Path | None]:
    """
    Returns the folder of the model, and the folder of its run, if there is one.

    Raises:
        ModelError: the source is neither a run nor a model.
    """
    if (source / "config.json").is_file():
        run = next((place for place in (source, source.parent) if (place / "recipe.yaml").is_file()), None)
        return source, run
    if (source / "best" / "config.json").is_file():
        return source / "best", source
    raise ModelError(
        f"{source} is neither a run (best/config.json) nor a model (config.json): name the folder of one of these."
    )


def _gather(release: Release, folder: Path) -> dict[str, float]:
    """Fills the folder. Returns the scores that the source gives the samples."""
    place, run = model_folder(release.source)
    license = spdx(release.license)
    base = _base(place, run)
    own = Base(place.resolve().name, folder_license(place))
    check_license(license, [own, *(base.chain() if base else ())])
    network, extractor = load_model(place, None, torch.device("cpu"), "float32")
    weights = fingerprint(network, extractor)
    network.config.calibration = without_paths(network.config.calibration)
    encoder = network.config.encoder_config
    encoder._name_or_path = without_paths(encoder._name_or_path)
    network.to(getattr(torch, release.dtype)).save_pretrained(folder)
    extractor.save_pretrained(folder)
    copy_familiarity(place, None, network.config, folder)
    (folder / "handler.py").write_text(_HANDLER, encoding="utf-8")
    (folder / "requirements.txt").write_text(f"nes2net_hf=={__version__}\n", encoding="utf-8")
    if run is not None:
        _copy_run(run, folder)
    if base is not None:
        write_base(base, folder)
    (folder / "LICENSE").write_text(_license_text(license, release.license_file), encoding="utf-8")
    evaluations = [_copy_figures(name, path, folder, weights) for name, path in release.evaluations]
    if release.robustness is not None:
        _copy_measured("robustness", release.robustness, folder, weights)
    if release.audit is not None:
        _copy_measured("audit", release.audit, folder, weights)
    write_card(
        folder,
        network,
        repo_id=release.repo_id,
        benchmark=release.benchmark,
        license=license,
        base=base,
        dtype=release.dtype,
        evaluations=evaluations,
        datasets=release.datasets,
    )
    with torch.inference_mode():
        return {path.stem: score(network, extractor, waveform, rate) for path, waveform, rate in samples()}


def _base(place: Path, run: Path | None) -> Base | None:
    """Returns the model that training began with: as the run recorded it, or as the recipe of a 0.1.0 run names it."""
    base = read_base(place / BASE)
    if base is None and run is not None:
        model = (yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8")) or {}).get("model") or {}
        if model.get("pretrained"):
            base = describe_base(model["pretrained"], model.get("revision"))
    return base


def _copy_run(run: Path, folder: Path) -> None:
    content = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))
    text = yaml.safe_dump(without_paths(content), sort_keys=False, allow_unicode=True)
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    for name in ("metrics.jsonl", "curves.png"):
        if (run / name).is_file():
            shutil.copyfile(run / name, folder / name)
    if (run / "emissions.csv").is_file():
        _copy_emissions(run / "emissions.csv", folder / "emissions.csv")


def _copy_emissions(source: Path, target: Path) -> None:
    """Copies only the columns that the card needs: codecarbon also writes where the machine is, with coordinates."""
    with open(source, encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        kept = [name for name in rows.fieldnames or () if name in _EMISSIONS]
        if "emissions" not in kept:
            raise ReleaseError(f"{source} has no column `emissions`, so codecarbon did not write it: remove it.")
        with open(target, "w", encoding="utf-8", newline="") as copy:
            writer = csv.DictWriter(copy, kept, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)


def _copy_figures(name: str, path: Path, folder: Path, weights: str) -> CardEvaluation:
    systems = _json(path, "name a figures.json that nes2net evaluate wrote")
    if not isinstance(systems, list) or len(systems) != 1 or not isinstance(systems[0], dict):
        raise ReleaseError(f"{path} must have the figures of one system, this model: evaluate its scores alone.")
    file = f"evaluation/{name}.json"
    if (folder / file).exists():
        raise ReleaseError(f"--evaluation {path}: there is already one named {name}: give it another NAME=.")
    figures = without_paths(systems[0])
    scored = figures.get("scored") or {}
    # In another precision, the same weights have another fingerprint.
    traced = scored.get("dtype") == "float32"
    if traced and scored.get("weights") != weights:
        raise ReleaseError(
            f"{path} has the figures of other weights, those of {scored.get('model')}: score this model."
        )
    (folder / "evaluation").mkdir(exist_ok=True)
    (folder / file).write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    pictures = {}
    for kind in _PICTURES:
        if path.with_name(f"{kind}.png").is_file():
            pictures[kind] = f"evaluation/{name}-{kind}.png"
            shutil.copyfile(path.with_name(f"{kind}.png"), folder / pictures[kind])
    return CardEvaluation(name, file, figures, traced, pictures)


def _copy_measured(command: str, source: Path, folder: Path, weights: str) -> None:
    """Copies what `nes2net robustness` or `nes2net audit` measured with these weights."""
    found = _json(source / f"{command}.json", f"name a folder that nes2net {command} wrote")
    if not isinstance(found, dict) or found.get("weights") != weights:
        raise ReleaseError(f"{source / f'{command}.json'} was measured with other weights: measure this model.")
    text = json.dumps(without_paths(found), indent=1, ensure_ascii=False)
    (folder / f"{command}.json").write_text(text + "\n", encoding="utf-8")
    if (source / f"{command}.png").is_file():
        shutil.copyfile(source / f"{command}.png", folder / f"{command}.png")


def _json(path: Path, fix: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReleaseError(f"{path} cannot be read ({why(error)}): {fix}.") from None


def _license_text(spdx: str, file: Path | None) -> str:
    from ..cards import sources

    texts = {path.stem: path for path in (sources() / "licenses").glob("*.txt")}
    if (sources().parent / "LICENSE").is_file():
        texts.setdefault("Apache-2.0", sources().parent / "LICENSE")  # in a checkout
    path = file or texts.get(spdx)
    if path is None:
        raise ReleaseError(
            f"--license {spdx}: the package includes only {', '.join(sorted(texts))}: pass the text as --license-file."
        )
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ReleaseError(f"--license-file {path} cannot be read ({why(error)}).") from None


def _refusal(error: BaseException, repo_id: str) -> str:
    seen: BaseException | None = error
    while seen is not None:
        status = getattr(getattr(seen, "response", None), "status_code", None)
        if status in (401, 403):
            return (
                "the Hub refused the token: log in with `hf auth login`, and a token that may write to "
                f"{repo_id.partition('/')[0]}"
            )
        seen = seen.__cause__ or seen.__context__
    return why(error)
