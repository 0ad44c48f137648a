"""Errors for missing programs, packages and files."""

from __future__ import annotations

import shutil


class CorpusError(Exception):
    """Something is missing. The message says what, and how to fix it."""


def require_program(program: str, package: str) -> str:
    """Returns the path of `program`; raises CorpusError that names the Debian `package` if it is not installed."""
    path = shutil.which(program)
    if path is None:
        raise CorpusError(f"{program} is not installed: apt-get install {package}.")
    return path
