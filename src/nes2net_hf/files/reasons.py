"""Why a file cannot be written, in a sentence."""

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
    What goes wrong while `path` is written becomes one sentence that names it and says why, no matter what raises it:
    the operating system, safetensors or torch.

    Raises:
        OutputError: nothing can be written there.
        DiskError: the disk is full or failed.
    """
    try:
        yield
    except Nes2NetError:
        raise
    except BrokenPipeError:
        raise  # the reader of our output has left; nothing is wrong
    except Exception as error:
        number = _write_error(error, Path(os.path.realpath(path)))
        if number is None:
            raise
        kind = DiskError if number in DISK_ERRORS else OutputError
        raise kind(f"{os.fspath(path)} cannot be written: {write_reason(number)}.") from error


def write_reason(number: int) -> str:
    """An error number of writing in plain words."""
    return _REASONS.get(number) or os.strerror(number)


# The request was possible and the work failed; all others are outputs that cannot be.
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota of the disk is used up",
    errno.EFBIG: "it is larger than a file may be there",
    errno.EIO: "the disk failed",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "no permission",
    errno.EPERM: "no permission",
    errno.ENOENT: "its folder does not exist; name an output in an existing folder",
    errno.ENOTDIR: "a part of its path is no folder",
    errno.EEXIST: "it, or a part of its path, is no folder",
    errno.EISDIR: "it is a folder",
    errno.ENAMETOOLONG: "its name is too long",
}


def _write_error(error: Exception, place: Path) -> int | None:
    """The error number behind an exception of writing; None of one that has nothing to do with this place."""
    if isinstance(error, OSError) and error.errno is not None:
        if error.filename is None:
            return error.errno if error.errno in _REASONS else None
        named = error.filename if error.filename2 is None else error.filename2  # of a copy, its target
        wrong = Path(os.path.realpath(os.fsdecode(named)))
        ours = (place, hidden(place, "part"), hidden(place, "old"), hidden(place, "lock"))
        return error.errno if any(wrong.is_relative_to(one) for one in ours) else None
    text = str(error)
    found = re.search(r"os error (\d+)|errno:? (\d+)", text, re.IGNORECASE)
    if found and (isinstance(error, shutil.Error) or re.match("safetensors|pyarrow", type(error).__module__)):
        number = int(found[1] or found[2])
        return number if number in {*DISK_ERRORS, errno.EROFS} else None  # of all others it may be about reading
    # torch does not say why
    return _what_stops(place.parent) if re.search("PytorchStreamWriter|inline_container", text) else None


def _what_stops(folder: Path) -> int:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(1 << 20))
    except OSError as error:
        return error.errno or errno.EIO
    return errno.EIO
