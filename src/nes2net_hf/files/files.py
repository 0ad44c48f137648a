"""Files and folders: how they are found, written whole or not at all, locked, and known by a checksum."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import socket
import stat
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

from ..errors import DiskError, Nes2NetError, OutputError


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex; a file of any size in little memory."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def atomic_file(path: str | os.PathLike[str], mode: str = "w", **options: Any) -> Iterator[IO[Any]]:
    """
    A file that is whole or not there: written beside its place under a hidden name and moved there at the end; what
    stood there before stays until then. A device or a pipe is written directly.

    Args:
        path: the file to write. A link is followed.
        mode: `"w"` or `"wb"`.
        **options: as of `open`; the encoding is UTF-8 unless it is named.

    Raises:
        OutputError: the file cannot be written there, or another process writes it (see `claim`).
        DiskError: the disk is full or failed.
    """
    if "b" not in mode:
        options.setdefault("encoding", "utf-8")
    with claim(path), explained(path):
        if _is_device(path):
            with open(path, mode, **options) as file:
                yield file
            return
        target = Path(os.path.realpath(path))
        part = _hidden(target, "part")
        try:
            with open(part, mode, **options) as file:
                yield file
            if target.exists():
                shutil.copymode(target, part)
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """
    A folder that is whole or not there: yields a hidden one beside it, which takes its place at the end. A folder that
    stood there before stays until then. What a killed process left of the same folder is cleared first.

    Raises:
        OutputError: the folder cannot be written there, or another process writes it (see `claim`).
        DiskError: the disk is full or failed.
    """
    with claim(path, "folder"), explained(path):
        target = Path(os.path.realpath(path))
        part, old = _hidden(target, "part"), _hidden(target, "old")
        if old.exists() and not target.exists():
            old.rename(target)  # a kill came between the two moves below
        _remove(part)
        _remove(old)
        try:
            part.mkdir()
            yield part
            _open_to_all(part)
            if target.exists():
                target.rename(old)
                try:
                    part.rename(target)
                except BaseException:
                    old.rename(target)
                    raise
                _remove(old)
            else:
                part.rename(target)
        finally:
            _remove(part)


@contextmanager
def atomic_files(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """
    Several files of a folder, all of them or none: yields a hidden folder inside, whose files move up at the end. What
    else is in the folder stays.

    Raises:
        OutputError: the files cannot be written there, or another process works there (see `claim`).
        DiskError: the disk is full or failed.
    """
    with claim(folder, "workplace"), explained(folder):
        place = Path(os.path.realpath(folder))
        part = place / ".part"
        _remove(part)
        try:
            part.mkdir()
            yield part
            for file in part.iterdir():
                os.replace(file, place / file.name)
        finally:
            _remove(part)


def check_suffix(path: str | os.PathLike[str], *forms: str, instead: str = "") -> None:
    """
    Raises OutputError where a file's suffix asks for another form than those that we write, in which nobody would look
    for it. A file needs none, and what has no letter (`scores-1.0`) is none.

    Args:
        forms: suffixes, in lower case.
        instead: the end of the sentence, where a form can be chosen otherwise.
    """
    suffix = Path(path).suffix
    if re.search("[a-zA-Z]", suffix) and suffix.lower() not in forms:
        known = ", ".join(forms[:-1]) + " or " * (len(forms) > 1) + forms[-1]
        raise OutputError(f"{os.fspath(path)} cannot be written as {suffix}: end its name in {known}{instead}.")


# No folder is called so by somebody who knows that it will be one.
_OF_FILES = {
    ".bin", ".csv", ".htm", ".html", ".json", ".jsonl", ".md", ".onnx", ".parquet", ".pdf", ".png", ".pt", ".pth",
    ".safetensors", ".tar", ".txt", ".yaml", ".zip",
}  # fmt: skip


@contextmanager
def claim(path: str | os.PathLike[str], kind: Literal["file", "folder", "workplace"] = "file") -> Iterator[None]:
    """
    The right of this process alone to write an output, checked before the work starts: its place must be there and
    writable. A lock of the operating system on a hidden file beside it, which is removed at the end; where a process
    is killed, that file stays but the lock does not. Of several processes of one run only the main one claims. The
    process that has a claim may claim the same again.

    Args:
        path: the output. A link is followed; a device or a pipe is not claimed.
        kind: a folder is replaced as a whole. A workplace is a folder that is made, written into and resumed; the
            hidden file lies inside it, because it may be the only place where we may write.

    Raises:
        OutputError: another process has the claim (the message names it), nothing can be written there, or a folder
            is to be made and named like a file.
        DiskError: the disk is full.
    """
    if _is_device(path):
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
        lock = place / ".lock" if kind == "workplace" else _hidden(place, "lock")
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


@contextmanager
def explained(path: str | os.PathLike[str]) -> Iterator[None]:
    """
    What goes wrong while `path` is written becomes one sentence that names it and says why, whoever raises it: the
    operating system, safetensors or torch.

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
        ours = (place, _hidden(place, "part"), _hidden(place, "old"), _hidden(place, "lock"))
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


def _is_device(path: str | os.PathLike[str]) -> bool:
    """Whether it is something else than a file or a folder, as /dev/stdout is."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _hidden(path: Path, purpose: str) -> Path:
    """`scores.txt` → `.scores.txt.part`, and no longer than a name may be."""
    name = path.name
    if len(os.fsencode(name)) > 200:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return path.with_name(f".{name}.{purpose}")


def _remove(folder: Path) -> None:
    if folder.is_dir():
        shutil.rmtree(folder, ignore_errors=True)
    else:
        folder.unlink(missing_ok=True)


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _open_to_all(folder: Path) -> None:
    """The permissions that the user gives new files: safetensors' are the user's alone."""
    mask = os.umask(0)
    os.umask(mask)
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink():
            file.chmod(0o666 & ~mask)


# What this process has claimed; with its number, because a forked child has a copy of this and not the lock.
_claimed: set[tuple[int, Path]] = set()


def _locked(lock: Path, path: str | os.PathLike[str]) -> IO[str]:
    """The lock's open file; the lock lives as long as it does."""
    while True:
        file = os.fdopen(os.open(lock, os.O_RDWR | os.O_CREAT, 0o666), "r+", encoding="utf-8")
        if not _lock(file):
            with file:
                raise OutputError(
                    f"{os.fspath(path)} is being written by another run ({_holder(file)}): wait until it has ended, "
                    "or name another output."
                )
        if _is_same(file, lock):
            break
        file.close()  # whoever had it has removed it meanwhile
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
        time.sleep(0.01)  # it has the lock and has not said its number yet
    return "a process that has just begun"


def _is_same(file: IO[str], lock: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(lock))
    except FileNotFoundError:
        return False


def _unlock(file: IO[str], lock: Path) -> None:
    """Removed while it is locked, so that nobody takes a file that is about to go; Windows wants it closed first."""
    with suppress(OSError):
        if os.name != "nt":
            lock.unlink()
        file.close()
        if os.name == "nt":
            lock.unlink()


if os.name == "nt":
    import msvcrt

    def _lock(file: IO[str]) -> bool:
        file.seek(1 << 20)  # a byte that nobody reads: a locked one cannot be read
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
        Of fcntl, not flock (nor filelock, which takes that): a loader's forked workers share flock's and would hold
        it on where the run was killed.
        """
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # A file system that has no locks cannot refuse.
            return error.errno not in {errno.EACCES, errno.EAGAIN}
        return True


class Found(NamedTuple):
    """What `walk_files` comes upon."""

    path: str
    problem: str | None = None
    """Why it cannot be read, in a sentence that names it: a folder that cannot be listed, or no file but a pipe, …."""
    is_folder: bool = False


def walk_files(root: str | os.PathLike[str]) -> Iterator[Found]:
    """
    The files below a folder in any nesting, its own first, each folder sorted by name; and the folders among them that
    cannot be listed, the root included, with their `problem`.

    Folders behind symbolic links follow after all others, so that what has a path without links keeps it. Every folder
    is listed once, however many ways lead to it, and links that lead back to a folder above them are passed over: no
    loop goes on. A link to a file is a file of its own name, and so is one that leads nowhere: opening it fails.
    """
    seen: set[tuple[int, int]] = set()
    real, linked = [os.fspath(root)], deque[str]()
    while real or linked:
        folder = real.pop() if real else linked.popleft()
        entries: list[os.DirEntry[str]] = []
        error: OSError | None = None
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as listing:
                entries.extend(listing)  # those before an error in the midst are kept
        except OSError as caught:
            error = caught
        folders: list[str] = []
        for entry in sorted(entries, key=lambda entry: entry.name):
            try:
                is_folder, is_file, is_link = entry.is_dir(), entry.is_file(), entry.is_symlink()
            except OSError as caught:
                if caught.errno == errno.ELOOP:  # a link to itself leads nowhere
                    yield Found(entry.path)
                else:
                    yield Found(entry.path, f"{entry.path} cannot be looked up ({caught.strerror}).", is_folder=True)
                continue
            if is_folder and not is_link:
                folders.append(entry.path)
            elif is_folder:
                if not _leads_back(entry.path):
                    linked.append(entry.path)
            elif is_file or not os.path.exists(entry.path):
                yield Found(entry.path)
            else:
                yield Found(entry.path, f"{entry.path} is a pipe, a socket or a device, and no file.")
        real.extend(reversed(folders))
        if error is not None:
            yield Found(folder, f"{folder} cannot be listed ({error.strerror or error}).", is_folder=True)


def _leads_back(link: str) -> bool:
    """Whether a link's target is a folder that the link lies in."""
    return Path(os.path.realpath(os.path.dirname(link))).is_relative_to(os.path.realpath(link))
