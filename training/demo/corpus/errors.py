"""Errors of a missing program, package or file."""

from __future__ import annotations

import shutil


class CorpusError(Exception):
    """One sentence that says what is missing and how to fix it."""


def require_program(program: str, package: str) -> str:
    """Path of `program`; raises CorpusError that names the `package` of Debian if it is not installed."""
    path = shutil.which(program)
    if path is None:
        raise CorpusError(f"{program} is not installed; apt-get install {package}.")
    return path
