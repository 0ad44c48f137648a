"""Explains in one sentence why a file cannot be written."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import DiskError, Nes2NetError, OutputError
from .places import hidden


@contextmanager
def explained(path: str | os.PathLike[str]) -> Iterator[None]:
    """
    Turns an error while `path` is written into one sentence with the path and the reason, whether the operating
    system, safetensors or torch raised it.

    Raises:
        OutputError: the path cannot be written.
        DiskError: the disk is full or failed.
    """
    try:
        yield
    except Nes2NetError:
        raise
    except BrokenPipeError:
        raise  # the reader closed our output; nothing is wrong
    except Exception as error:
        number = _write_error(error, Path(os.path.realpath(path)))
        if number is None:
            raise
        kind = DiskError if number in DISK_ERRORS else OutputError
        raise kind(f"{os.fspath(path)} cannot be written: {write_reason(number)}.") from error


def write_reason(number: int) -> str:
    """Returns the reason for an error number, in plain words."""
    return _REASONS.get(number) or os.strerror(number)


# The work failed although the output was valid. With all other errors, the output itself is wrong.
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "it is too large for this disk",
    errno.EIO: "the disk failed",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "no permission",
    errno.EPERM: "no permission",
    errno.ENOENT: "its folder does not exist; name an output in an existing folder",
    errno.ENOTDIR: "part of its path is not a folder",
    errno.EEXIST: "it, or part of its path, is not a folder",
    errno.EISDIR: "it is a folder",
    errno.ENAMETOOLONG: "its name is too long",
}


def _write_error(error: Exception, place: Path) -> int | None:
    """Returns the error number behind an exception; None if it is not about writing this place."""
    if isinstance(error, OSError) and error.errno is not None:
        if error.filename is None:
            return error.errno if error.errno in _REASONS else None
        named = error.filename if error.filename2 is None else error.filename2  # the target of a copy
        wrong = Path(os.path.realpath(os.fsdecode(named)))
        ours = (place, hidden(place, "part"), hidden(place, "old"), hidden(place, "lock"))
        return error.errno if any(wrong.is_relative_to(one) for one in ours) else None
    text = str(error)
    found = re.search(r"os error (\d+)|errno:? (\d+)", text, re.IGNORECASE)
    if found and (isinstance(error, shutil.Error) or re.match("safetensors|pyarrow", type(error).__module__)):
        number = int(found[1] or found[2])
        return number if number in {*DISK_ERRORS, errno.EROFS} else None  # others may be about reading
    # torch does not give a reason
    return _what_stops(place.parent) if re.search("PytorchStreamWriter|inline_container", text) else None


def _what_stops(folder: Path) -> int:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(1 << 20))
    except OSError as error:
        return error.errno or errno.EIO
    return errno.EIO
