"""
Official checkpoints as models: each file is converted once, into Hugging Face's cache of derived files (`HF_HOME`).

A checkpoint is named by its path, by its place on the Hub (`ORG/REPO:FILE`), or by the short name of a published one.
What the file does not show is taken from a published checkpoint, or stated after the name, as in
`best.pth:dilation=2,activation=selu`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from functools import cache
from pathlib import Path, PurePath
from typing import Any

from huggingface_hub import HfFileMetadata, cached_assets_path, constants, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import WeakFileLock

from ..errors import ConversionError, DiskError, ModelError, OutputError
from ..files import atomic_file, atomic_folder, explained, sha256_of
from ..hub import bounded_requests, why
from .places import check_place
from .published import Published, published, recognised

logger = logging.getLogger(__name__)

SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")
NOTE = "converted.json"
_FORMAT = 1  # of entries; raised when the converter writes something else for the same file
_STATED = re.compile(r"(.+?):((?:dilation|activation|encoder_config)=.+)")
_ON_HUB = re.compile(r"([\w.-]+/[\w.-]+):(.+)")


@dataclass(frozen=True)
class Entry:
    """A converted checkpoint in the cache."""

    folder: Path
    source: str
    """Path, or ORG/REPO:FILE."""
    commit: str | None
    revisions: tuple[str, ...]
    """Branches, tags and commits that named it."""
    sha256: str
    stated: dict[str, Any]
    """What the file does not show: dilation, activation, encoder_config."""
    date: str

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(path.stat().st_size for path in self.folder.iterdir())


@dataclass(frozen=True)
class _Checkpoint:
    """A checkpoint as a user names it."""

    name: str
    source: str
    known: Published | None
    stated: dict[str, Any] = field(default_factory=dict)

    @property
    def place_on_hub(self) -> tuple[str, str] | None:
        match = None if os.path.exists(self.source) else _ON_HUB.fullmatch(self.source)
        return (match[1], match[2]) if match else None


def locate(model: str | os.PathLike[str], revision: str | None = None) -> tuple[str, str | None]:
    """
    Returns the folder or Hub id, and the revision, of what a user calls a model. An official checkpoint is downloaded
    if needed, and converted unless the cache has it; what was recognised is logged once.

    Raises:
        ModelError: there is no such model, or the checkpoint cannot be downloaded or converted.
        OutputError, DiskError: the cache cannot be written.
    """
    name = os.fspath(model)
    checkpoint = _parse(name)
    if checkpoint is None:
        check_place(name)
        return name, revision
    try:
        return str(_entry(checkpoint, revision).folder), None
    except ConversionError as error:
        raise ModelError(_as_stated(str(error))) from None


def find(model: str | os.PathLike[str], revision: str | None = None) -> tuple[str, str | None]:
    """Like `locate`, without downloads and conversions: a checkpoint that was never converted keeps its name."""
    name = os.fspath(model)
    with suppress(ModelError):
        checkpoint = _parse(name)
        if checkpoint is not None and (kept := _kept(checkpoint, revision)) is not None:
            return str(kept.folder), None
    return name, revision


def check_model(name: str) -> None:
    """Raises ModelError if `name` names no model, without contacting the Hub or converting anything."""
    checkpoint = _parse(name)
    if checkpoint is None:
        check_place(name)
    else:
        _wanted(checkpoint)


def entries() -> list[Entry]:
    """Returns the converted checkpoints in the cache, in alphabetical order of their sources."""
    return sorted(_entries(), key=lambda entry: (entry.source, entry.date))


def clear(entry: Entry) -> None:
    """
    Removes a converted checkpoint. The file that it came from stays.

    Raises:
        OutputError: it cannot be removed.
    """
    with explained(entry.folder):
        (entry.folder / NOTE).unlink()  # first, so that what an interruption leaves is no entry
        shutil.rmtree(entry.folder)


def _parse(name: str) -> _Checkpoint | None:
    """Returns the checkpoint that a name means, or None for a folder or Hub id."""
    if os.path.isdir(name):
        return None
    source, stated = name, dict[str, Any]()
    if not os.path.exists(name) and (match := _STATED.fullmatch(name)):
        source, stated = match[1], _read_stated(name, match[2])
    known = None
    if not os.path.exists(source) and source in published():
        known = published()[source]
        if known.source is None:
            raise ModelError(
                f"{source} is not on the Hub: download it from {known.page}, then name the file as model, with "
                f"{_spelt(known.dilation, known.activation)} after it."
            )
        source = known.source
    checkpoint = _Checkpoint(name, source, known or recognised(source), stated)
    if os.path.isdir(source) or not source.endswith(SUFFIXES):
        if stated or checkpoint.place_on_hub:
            raise ModelError(f"{source} is not a checkpoint: it must be a file that ends in {', '.join(SUFFIXES)}.")
        return None
    if checkpoint.place_on_hub is None and not os.path.isfile(source):
        raise ModelError(f"checkpoint {source} does not exist.")
    return checkpoint


def _read_stated(name: str, text: str) -> dict[str, Any]:
    stated: dict[str, Any] = {}
    for part in text.split(","):
        key, _, value = part.partition("=")
        if key == "dilation" and re.fullmatch("[1-9][0-9]{0,3}", value):
            stated[key] = int(value)
        elif (key == "activation" and value in ("relu", "selu")) or (key == "encoder_config" and value):
            stated[key] = value
        else:
            raise ModelError(
                f"{name}: {part!r} must be dilation=N, activation=relu, activation=selu or encoder_config=PATH."
            )
    return stated


def _entry(checkpoint: _Checkpoint, revision: str | None) -> Entry:
    """Returns the converted checkpoint, from the cache or newly made."""
    place, asked, online = checkpoint.place_on_hub, revision or "main", None
    if place is None and revision is not None:
        raise ModelError(f"{checkpoint.source} is a file on disk, which has no revisions: omit {revision!r}.")
    if place is not None:
        try:
            with bounded_requests():
                online = get_hf_file_metadata(hf_hub_url(*place, revision=revision))
        except (RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError) as error:
            raise ModelError(f"{checkpoint.name} could not be downloaded: {why(error)}.") from None
        except Exception:  # no network: the download says so, unless the cache has it
            online = None
    if (kept := _kept(checkpoint, revision, online)) is not None:
        names = {asked, *([online.commit_hash] if online and online.commit_hash else [])}
        if place is not None and not names <= {kept.commit, *kept.revisions}:
            with suppress(OutputError, DiskError):  # of use only without a network
                _write_note(kept.folder, replace(kept, revisions=tuple(sorted({*kept.revisions, *names}))))
        return kept
    if place is None:
        return _convert(checkpoint, Path(checkpoint.source), None, ())
    from ..conversion.download import fetch

    path, _ = fetch(checkpoint.source, revision)
    return _convert(checkpoint, path, path.parents[place[1].count("/")].name, (asked,))


def _wanted(checkpoint: _Checkpoint) -> dict[str, Any]:
    """Returns what the file does not show: as stated, or of the published checkpoint that it is."""
    known = checkpoint.known
    wanted: dict[str, Any] = {"dilation": known.dilation, "activation": known.activation} if known else {}
    wanted |= checkpoint.stated
    if "dilation" not in wanted:
        raise ModelError(
            f"{checkpoint.name} does not show the dilation that it was trained with: state it, as in "
            f"{checkpoint.source}:dilation=2 (the authors train with 2 on XLS-R and 1 on WavLM)."
        )
    if (path := wanted.get("encoder_config")) is not None:
        file = Path(path, "config.json") if os.path.isdir(path) else Path(path)
        if not file.is_file():
            raise ModelError(f"{checkpoint.name}: the encoder configuration {path} does not exist.")
        wanted["encoder_config"] = str(Path(path).absolute())
        wanted["encoder_sha256"] = sha256_of(file)
    return wanted


def _kept(checkpoint: _Checkpoint, revision: str | None, online: HfFileMetadata | None = None) -> Entry | None:
    """Returns the newest entry of a checkpoint: of a file's content, of a commit, or if it is unknown, a revision."""
    wanted = _wanted(checkpoint)
    sha256 = _checksum(Path(checkpoint.source)) if checkpoint.place_on_hub is None else None
    found = []
    for entry in _entries():
        if sha256 is not None:
            is_same = entry.sha256 == sha256
        elif online is not None:  # of a large file, the tag is the SHA-256
            is_same = entry.source == checkpoint.source and (
                online.etag == entry.sha256 or online.commit_hash in (entry.commit, *entry.revisions)
            )
        else:
            is_same = entry.source == checkpoint.source and (revision or "main") in (*entry.revisions, entry.commit)
        if is_same and entry.stated == wanted:
            found.append(entry)
    return max(found, key=lambda entry: entry.date, default=None)


def _convert(checkpoint: _Checkpoint, path: Path, commit: str | None, revisions: tuple[str, ...]) -> Entry:
    """Converts a file into the cache, or waits for the process that does."""
    from ..conversion.converting import prepare, write
    from ..conversion.encoders import is_bare_encoder
    from ..conversion.reading import read_checkpoint

    wanted, sha256 = _wanted(checkpoint), _checksum(path)
    key = hashlib.sha256(json.dumps([_FORMAT, sha256, commit, wanted], sort_keys=True).encode()).hexdigest()[:12]
    folder = _root() / f"{PurePath(path.name).stem}-{key}"
    with explained(folder):
        lock = _root() / ".locks" / f"{key}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if (entry := _read_note(folder)) is not None:  # another process made it meanwhile
            return entry
        read = read_checkpoint(path)
        if is_bare_encoder(read.tensors):
            raise ModelError(
                f"{checkpoint.name} is a bare encoder, from which a detector can be trained, but no detector."
            )
        lines: list[str] = []
        converted = prepare(
            read, wanted.get("encoder_config"), wanted.get("activation"), wanted["dilation"], lines.append
        )
        if "activation" in converted.recognised.unknown:
            raise ModelError(
                f"{checkpoint.name} does not show its activation, because its batch norms were never trained: state "
                f"it, as in {checkpoint.source}:{_spelt(wanted['dilation'], 'relu')}."
            )
        date = datetime.now(timezone.utc).isoformat(timespec="seconds")
        source = checkpoint.source if commit else os.path.abspath(path)
        entry = Entry(folder, source, commit, revisions, sha256, wanted, date)
        with atomic_folder(folder) as fresh:
            write(converted, fresh, checkpoint.source if commit else None)
            _write_note(fresh, entry)
    if checkpoint.known is not None:
        lines.append(f"published {checkpoint.known.name}: {checkpoint.known.title}")
        lines.append(f"licence   {checkpoint.known.license}")
    logger.warning(
        "%s was converted once, and is kept in %s:\n%s",
        checkpoint.name,
        folder,
        "\n".join(f"  {_as_stated(line)}" for line in lines),
    )
    return entry


def _checksum(path: Path) -> str:
    """Returns the SHA-256 of a checkpoint, which is read once for each command."""
    try:
        stat = path.stat()
        return _sha256(path, (stat.st_ino, stat.st_size, stat.st_mtime_ns))
    except OSError as error:
        raise ModelError(f"checkpoint {path} cannot be read: {error.strerror}.") from None


@cache
def _sha256(path: Path, stamp: tuple[int, ...]) -> str:
    return sha256_of(path)


def _spelt(dilation: int, activation: str) -> str:
    return f"dilation={dilation},activation={activation}"


def _as_stated(text: str) -> str:
    """Spells the options of `nes2net convert` as they are stated after a name."""
    return re.sub(r"--(encoder-config|activation|dilation)", lambda match: f"{match[1].replace('-', '_')}=…", text)


def _root() -> Path:
    """Returns the folder of the entries, which is created."""
    try:
        with explained(constants.HF_ASSETS_CACHE):
            return cached_assets_path("nes2net_hf", "converted", "checkpoints")
    except ValueError as error:
        raise OutputError(f"{str(error).rstrip('.')}: set HF_HOME to another folder.") from None


def _entries() -> Iterator[Entry]:
    for folder in _root().glob("[!.]*/"):  # hidden ones are being written
        if (entry := _read_note(folder)) is not None:
            yield entry


def _read_note(folder: Path) -> Entry | None:
    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        fields = json.loads((folder / NOTE).read_text(encoding="utf-8"))
        if fields.pop("format") == _FORMAT:
            return Entry(folder=folder, **fields | {"revisions": tuple(fields["revisions"])})
    return None


def _write_note(folder: Path, entry: Entry) -> None:
    fields = {"format": _FORMAT, **asdict(entry)}
    del fields["folder"]
    with atomic_file(folder / NOTE) as file:
        file.write(json.dumps(fields, indent=1) + "\n")
