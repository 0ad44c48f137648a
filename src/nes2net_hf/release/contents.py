"""Checks for contents that must not be sent: pickles, tokens, local paths, files too large for the Hub."""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path
from typing import Any

from ..files import sha256_of
from .card import ReleaseError

LARGEST_FILE = 50 * 10**9  # bytes: the Hub's limit for a file


_PICKLES = {".bin", ".ckpt", ".joblib", ".npy", ".pickle", ".pkl", ".pt", ".pth"}


_TOKEN = re.compile(r"\b(?:hf|api_org)_[A-Za-z0-9]{30,}|\bgh[pousr]_[A-Za-z0-9]{30,}|\bAKIA[0-9A-Z]{16}\b")


_PATH = re.compile(r"(?<![\w.:/<>~)\]-])/(?:[\w.@+ -]+/)+[\w.@+-]+|\b[A-Za-z]:\\\w|(?<!\w)~/\w|file:///")


_PATH_IN_TEXT = re.compile(r"(?<![\w.:/<>~)\]-])/(?:[\w.@+-]+/)+[\w.@+-]+")  # ends at a space


def checksums(folder: Path) -> dict[str, tuple[int, str]]:
    """Returns for each file that would be sent: name → size in bytes, SHA-256."""
    return {path.relative_to(folder).as_posix(): (path.stat().st_size, sha256_of(path)) for path in _files(folder)}


def check_contents(folder: Path) -> None:
    """
    Checks every file that would be sent.

    Raises:
        ReleaseError: a file is a pickle or too large, or contains a token or a local path; the message names the file.
    """
    for path in _files(folder):
        name = path.relative_to(folder).as_posix()
        if path.stat().st_size > LARGEST_FILE:
            raise ReleaseError(f"{name} is larger than 50 GB, the Hub's limit for a file: save it in shards.")
        if path.suffix in _PICKLES or _is_pickle(path):
            raise ReleaseError(f"{name} is a pickle, which can run code when it is loaded: remove it.")
        if path.suffix in (".safetensors", ".png"):
            continue
        text = path.read_text(encoding="utf-8")
        if _TOKEN.search(text):
            raise ReleaseError(f"{name} contains what looks like an access token: remove and revoke the token.")
        private = next(_PATH.finditer(text), None) if name != "LICENSE" else None
        if private:
            raise ReleaseError(f"{name} contains a path of this machine, {private[0]}: remove the path.")


def without_paths(value: Any) -> Any:
    """Returns a copy in which every absolute path, alone or inside a text, is cut to its last part."""
    if isinstance(value, dict):
        return {key: without_paths(one) for key, one in value.items()}
    if isinstance(value, list):
        return [without_paths(one) for one in value]
    if isinstance(value, str) and (os.path.isabs(value) or value.startswith("~")):
        return Path(value).name
    if isinstance(value, str):
        return _PATH_IN_TEXT.sub(lambda path: Path(path[0]).name, value)
    return value


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def _is_pickle(path: Path) -> bool:
    with open(path, "rb") as file:
        start = file.read(2)
    if len(start) == 2 and start[0] == 0x80 and 2 <= start[1] <= 5:
        return True
    return zipfile.is_zipfile(path) and any(name.endswith(".pkl") for name in zipfile.ZipFile(path).namelist())
