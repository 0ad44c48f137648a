"""Lets only one process at a time write a file or a folder."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Literal

from ..errors import OutputError
from .places import hidden, is_device
from .reasons import explained

# A new folder with such a suffix is almost certainly a mistake.
_OF_FILES = {
    ".bin", ".csv", ".htm", ".html", ".json", ".jsonl", ".md", ".onnx", ".parquet", ".pdf", ".png", ".pt", ".pth",
    ".safetensors", ".tar", ".txt", ".yaml", ".zip",
}  # fmt: skip


@contextmanager
def claim(path: str | os.PathLike[str], kind: Literal["file", "folder", "workplace"] = "file") -> Iterator[None]:
    """
    Claims an output for this process, after checking that it can be written, before the work starts. The claim is an
    operating-system lock on a hidden file next to the output. The file is removed at the end; if the process is
    killed, the file stays but the lock does not. In a run with several processes, only the main one claims. A process
    may claim the same output again.

    Args:
        path: the output. Links are followed; devices and pipes are not claimed.
        kind: a `folder` is replaced as a whole. A `workplace` is a folder that is created, written into and resumed.
            Its hidden file is inside, because there may be no permission to write outside.

    Raises:
        OutputError: another process has the claim (the message names it), the output cannot be written, or a new
            folder is named like a file.
        DiskError: the disk is full.
    """
    if is_device(path):
        yield
        return
    place = Path(os.path.realpath(path))
    if kind != "file" and place.suffix.lower() in _OF_FILES and not place.exists():
        raise OutputError(f"{os.fspath(path)} will be a folder: name it without {place.suffix}.")
    made = kind == "workplace" and not place.exists()
    with explained(path):
        if kind == "workplace":
            place.mkdir(parents=True, exist_ok=True)
        elif place.exists() and place.is_dir() != (kind == "folder"):
            raise OutputError(
                f"{os.fspath(path)} cannot be written: it is a {'file' if kind == 'folder' else 'folder'}."
            )
        elif place.exists() and not os.access(place, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        lock = place / ".lock" if kind == "workplace" else hidden(place, "lock")
        key = (os.getpid(), lock)
        if key in _claimed:
            file = None
        else:
            try:
                file = _locked(lock, path)
            except BaseException:
                if made:
                    _remove_empty(place)
                raise
            _claimed.add(key)
    try:
        yield
    finally:
        if file is not None and key[0] == os.getpid():  # not a forked child
            _claimed.remove(key)
            _unlock(file, lock)
            if made:
                _remove_empty(place)


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


# Claims of this process, with its id, because a forked child has a copy of this set but not the locks.
_claimed: set[tuple[int, Path]] = set()


def _locked(lock: Path, path: str | os.PathLike[str]) -> IO[str]:
    """Returns the lock's open file. The lock lasts until it is closed."""
    while True:
        file = os.fdopen(os.open(lock, os.O_RDWR | os.O_CREAT, 0o666), "r+", encoding="utf-8")
        if not _lock(file):
            with file:
                raise OutputError(
                    f"{os.fspath(path)} is being written by another run ({_holder(file)}): wait until it ends, or "
                    "name another output."
                )
        if _is_same(file, lock):
            break
        file.close()  # the previous run has removed it
    try:
        file.truncate(0)
        file.write(f"{os.getpid()} {socket.gethostname()}\n")
        file.flush()
    except OSError:  # a full disk
        _unlock(file, lock)
        raise
    return file


def _holder(file: IO[str]) -> str:
    for _ in range(20):
        file.seek(0)
        if words := file.read().split():
            elsewhere = f" on {words[1]}" if words[1:] and words[1] != socket.gethostname() else ""
            return f"process {words[0]}{elsewhere}"
        time.sleep(0.01)  # it has the lock but has not written its id yet
    return "a process that has just started"


def _is_same(file: IO[str], lock: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(lock))
    except FileNotFoundError:
        return False


def _unlock(file: IO[str], lock: Path) -> None:
    """Removes the file while it is locked, so that nobody locks a removed file. Windows must close it first."""
    with suppress(OSError):
        if os.name != "nt":
            lock.unlink()
        file.close()
        if os.name == "nt":
            lock.unlink()


if os.name == "nt":
    import msvcrt

    def _lock(file: IO[str]) -> bool:
        file.seek(1 << 20)  # a byte that nobody reads, because locked bytes cannot be read
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        except OSError:
            return False
        finally:
            file.seek(0)
        return True

else:
    import fcntl

    def _lock(file: IO[str]) -> bool:
        """
        Uses fcntl, not flock (nor filelock, which uses flock): a loader's forked workers share flock's lock and would
        keep it after a run was killed.
        """
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # Other errors mean that the file system has no locks: continue without.
            return error.errno not in {errno.EACCES, errno.EAGAIN}
        return True
