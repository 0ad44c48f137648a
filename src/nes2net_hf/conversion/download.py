"""Download a checkpoint file from the Hub and compare its checksum."""

from __future__ import annotations

import os
import re
from pathlib import Path

from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.utils.sha import git_hash

from ..errors import ConversionError
from ..files import sha256_of
from ..hub import bounded_requests, fetch_large, hub_reason


def fetch(source: str, revision: str | None) -> tuple[Path, bool]:
    """
    Returns the path of a local file, or of a file on the Hub (`org/repo:file.pth`) after its download; and whether it
    is from the Hub.

    Raises:
        ConversionError: it cannot be downloaded, or the file in the cache differs from the Hub's.
    """
    match = re.fullmatch(r"([\w.-]+/[\w.-]+):(.+)", source)
    if match is None or os.path.exists(source):
        if revision is not None:
            raise ConversionError("--revision is only for a file on the Hub: name the file as org/repo:file.pth.")
        return Path(source), False
    repo, file = match.groups()
    try:
        fetch_large(repo, re.escape(file), revision)
        with bounded_requests():
            path = Path(hf_hub_download(repo, file, revision=revision))
    except Exception as error:
        reason = (
            hub_reason(error, "file")
            or f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
        )
        raise ConversionError(f"{source[:200]} could not be downloaded: {reason}.") from None
    if not _is_whole(path, _checksum(path, repo, file)):
        raise ConversionError(
            f"{source} is damaged in the cache ({path}): its checksum differs from the Hub's; clear it with "
            f"`hf cache rm model/{repo}`, then convert again."
        )
    return path, True


def _checksum(path: Path, repo: str, file: str) -> str:
    """Returns the Hub's checksum: SHA-256 of a large file, git's SHA-1 of another; empty if it is unknown."""
    if path.is_symlink():
        return Path(os.readlink(path)).name  # the cache names its contents by checksum
    commit = path.parents[file.count("/")].name
    try:  # caches that cannot make links do not keep the checksum
        return get_hf_file_metadata(hf_hub_url(repo, file, revision=commit)).etag or ""
    except Exception:
        return ""


def _is_whole(path: Path, checksum: str) -> bool:
    if re.fullmatch("[0-9a-f]{64}", checksum):
        return sha256_of(path) == checksum
    if re.fullmatch("[0-9a-f]{40}", checksum):
        return git_hash(path.read_bytes()) == checksum
    return True
