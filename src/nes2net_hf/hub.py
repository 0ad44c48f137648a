"""
Access to the Hub: errors as one sentence, requests with time limits, and downloads that resume.

If a connection receives nothing for `HF_HUB_DOWNLOAD_TIMEOUT` seconds (10), a new connection resumes the download.
After three such connections in a row (half a minute) the download fails; for small files, which huggingface_hub
downloads itself, after six. The next call resumes it.
"""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import re
import ssl
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import huggingface_hub
from huggingface_hub import constants, get_hf_file_metadata, get_session, hf_hub_url
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import WeakFileLock, build_hf_headers, hf_raise_for_status, tqdm

from .errors import PushError
from .files import sha256_of, write_reason

logger = logging.getLogger(__name__)

PATIENCE = 1.5  # s without an answer before a warning
WRITING = 300.0  # s that the Hub may take to commit an upload
ANNOUNCED = 200_000_000  # bytes from which a download says its size first
SHORT_WAIT = 5.0  # s; huggingface_hub would sleep through longer rate limits five times, so they are errors

SILENCES = 3  # consecutive connections without data before a download fails
_BREAKS = {"TimeoutException", "NetworkError", "RemoteProtocolError"}

_LOGIN = "log in with `hf auth login`"
_ABSENT = f"there is no such repository on the Hub, or it is private: check the id, or {_LOGIN}"
_GATED = f"access to it is restricted: request access on its page, then {_LOGIN}"
_NO_REVISION = "it has no such revision{}: check the branch, tag or commit"
_REFUSED = f"the Hub refused the token: {_LOGIN} again, or unset HF_TOKEN if it has an old token"
_PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
# `/org/name/resolve/REVISION/FILE`, `/api/models/org/name/revision/REVISION`
_PLACE = re.compile(r"/(?:resolve|revision|tree|paths-info)/(?P<revision>[^/]+)(?:/(?P<file>.+))?$")


def hub_reason(error: BaseException, local: str = "folder") -> str | None:
    """
    Returns the reason in a chain of exceptions, as the end of a sentence that starts with the id; None if the Hub is
    not involved. An answer of the Hub counts first, then the reason for no answer.

    Args:
        local: what the user can pass instead of an id: a local "folder" or "file".
    """
    chain = list(_chain(error))
    for one in chain:
        if isinstance(getattr(getattr(one, "response", None), "status_code", None), int):
            return _of_answer(one.response)  # type: ignore[attr-defined]
    return _of_silence(chain, local)


def why(error: BaseException) -> str:
    """Returns the reason at the Hub, or else the exception's message, on one line without a full stop."""
    return hub_reason(error) or " ".join(str(error).split())[:200].rstrip(".")


@contextmanager
def bounded_requests() -> Iterator[None]:
    """
    Limits the time of huggingface_hub's requests, some of which would wait forever. A request that reads waits up to
    `HF_HUB_DOWNLOAD_TIMEOUT` for the next byte; one that writes, up to `WRITING`. A rate limit above `SHORT_WAIT` is
    an immediate error, because huggingface_hub would sleep silently for minutes. If no answer arrives within
    `PATIENCE`, one warning is logged, and huggingface_hub's own messages about retries are dropped.
    """
    with _watch:
        yield


def prepare_push(repo_id: str, kind: str = "model", public: bool = False) -> None:
    """
    Creates the repository if it does not exist, so that problems with a push appear before the work.

    Args:
        kind: `"model"`, `"dataset"` or `"space"`.
        public: whether a new repository is public.

    Raises:
        PushError: the Hub cannot be reached, or the token may not write there.
    """
    try:
        make_repository(repo_id, kind, public)
    except Exception as error:
        raise PushError(f"nothing can be pushed to {repo_id}: {why(error)}.") from None


def make_repository(repo_id: str, kind: str = "model", public: bool = False) -> str:
    """Creates a repository if it does not exist, and returns its address. Raises the errors of huggingface_hub."""
    with bounded_requests():
        sdk = "gradio" if kind == "space" else None
        address = huggingface_hub.HfApi().create_repo(
            repo_id, repo_type=kind, space_sdk=sdk, private=not public, exist_ok=True
        )
    return str(address)


def push_folder(folder: Path, repo_id: str, message: str, kind: str = "model", public: bool = False) -> str:
    """
    Uploads a folder as one commit to a repository, which is created if needed, and returns its address. After a broken
    connection the same call resumes: large files that the Hub has are not sent again. Hidden files and `.part` files
    are not uploaded. Raises the errors of huggingface_hub.
    """
    address = make_repository(repo_id, kind, public)
    send_folder(folder, repo_id, message, kind)
    return address


def send_folder(folder: Path, repo_id: str, message: str, kind: str = "model") -> None:
    """Like `push_folder`, to an existing repository."""
    with bounded_requests():
        huggingface_hub.HfApi().upload_folder(
            repo_id=repo_id,
            repo_type=kind,
            folder_path=folder,
            commit_message=message,
            ignore_patterns=["*.part", ".*"],
        )


def fetch_large(repo_id: str, files: str, revision: str | None = None) -> None:
    """
    Downloads the large files of a model on the Hub into the cache, where huggingface_hub then finds them. If a
    download fails, the next call resumes it; huggingface_hub would start again.

    Does nothing if the Hub cannot list the files, because they may be in the cache.

    Args:
        files: regular expression of the file names.
        revision: branch, tag or commit.

    Raises:
        Exception: a download failed; `hub_reason` says why.
    """
    if constants.HF_HUB_OFFLINE:
        return
    with bounded_requests():
        try:
            info = huggingface_hub.HfApi().model_info(repo_id, revision=revision, files_metadata=True)
        except Exception:
            return
        wanted = [(file, file.lfs) for file in info.siblings or () if re.fullmatch(files, file.rfilename) and file.lfs]
        blobs = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repo_id, repo_type="model"), "blobs")
        missing = sum(large.size for _, large in wanted if not (blobs / large.sha256).exists())
        if missing > ANNOUNCED:
            logger.warning("downloading %.2f GB from %s, once", missing / 1e9, repo_id)
        for file, _ in wanted:
            _fetch(repo_id, file.rfilename, str(info.sha))


def _fetch(repo_id: str, file: str, commit: str) -> None:
    """Downloads one file to the cache, named by its SHA-256. Does nothing if Xet will download it."""
    url = hf_hub_url(repo_id, file, revision=commit)
    metadata = get_hf_file_metadata(url)
    has_xet = metadata.xet_file_data is not None and not constants.HF_HUB_DISABLE_XET and find_spec("hf_xet")
    if metadata.etag is None or has_xet:
        return
    folder = repo_folder_name(repo_id=repo_id, repo_type="model")
    blobs, locks = Path(constants.HF_HUB_CACHE, folder, "blobs"), Path(constants.HF_HUB_CACHE, ".locks", folder)
    blobs.mkdir(parents=True, exist_ok=True)
    locks.mkdir(parents=True, exist_ok=True)
    whole, part = blobs / metadata.etag, blobs / f"{metadata.etag}.part"
    with WeakFileLock(locks / f"{metadata.etag}.lock"):  # the lock that huggingface_hub uses
        if whole.exists():
            return
        with open(part, "ab") as so_far:
            _read_on(url, so_far, metadata.size or 0, file)
        if sha256_of(part) != metadata.etag:
            part.unlink()
            raise OSError(f"Consistency check failed: {file} differs from the file on the Hub.")
        os.replace(part, whole)


def _read_on(url: str, so_far: IO[bytes], size: int, name: str) -> None:
    """Appends the missing part of a file. Uses new connections as long as data arrives."""
    silences = 0
    with tqdm(total=size, initial=so_far.tell(), desc=name, unit="B", unit_scale=True) as bar:
        while (start := so_far.tell()) < size:
            headers = build_hf_headers() | {"Accept-Encoding": "identity"}
            if start:
                headers["Range"] = f"bytes={start}-"
            try:
                with get_session().stream(
                    "GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT, follow_redirects=True
                ) as response:
                    hf_raise_for_status(response)
                    if response.status_code != 206:  # the server sends the whole file
                        so_far.seek(0)
                        so_far.truncate()
                    for block in response.iter_bytes():
                        so_far.write(block)
                        bar.update(len(block))
                return
            except Exception as error:
                silences = 0 if so_far.tell() > start else silences + 1
                if silences == SILENCES or _kinds([error]).isdisjoint(_BREAKS):
                    raise
                time.sleep(1)


class _Watch(logging.Filter):
    """
    Implements `bounded_requests` for all threads: limits requests, and warns once about waiting. As a filter of
    huggingface_hub's loggers, it drops messages about retries, and finds the new client that huggingface_hub creates
    after a failed connection.
    """

    _OF_RETRIES = logging.getLogger("huggingface_hub.utils._http")
    _OF_DOWNLOADS = logging.getLogger("huggingface_hub.file_download")

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.RLock()
        self._depth = 0
        self._clients: list[tuple[Any, Any]] = []
        """Each client with its original hooks."""
        self._timer: threading.Timer | None = None
        self._has_said = False
        self._level = logging.NOTSET

    def __enter__(self) -> None:
        with self._lock:
            self._depth += 1
            if self._depth > 1:
                return
            self._has_said = False
            self._bind(get_session())
            self._level = self._OF_RETRIES.level
            if not self._OF_RETRIES.isEnabledFor(logging.WARNING):  # the filter must see the messages
                self._OF_RETRIES.setLevel(logging.WARNING)
            for its in (self._OF_RETRIES, self._OF_DOWNLOADS):
                its.addFilter(self)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth:
                return
            self._stop()
            for its in (self._OF_RETRIES, self._OF_DOWNLOADS):
                its.removeFilter(self)
            self._OF_RETRIES.setLevel(self._level)
            while self._clients:
                client, before = self._clients.pop()
                client.event_hooks = before

    def filter(self, record: logging.LogRecord) -> bool:
        with self._lock:
            self._bind(get_session())
        if record.name == self._OF_DOWNLOADS.name:
            return not str(record.msg).startswith("Error while downloading")
        return record.levelno != logging.WARNING

    def _bind(self, client: Any) -> None:
        if any(client is known for known, _ in self._clients):
            return
        before = client.event_hooks
        self._clients.append((client, before))
        client.event_hooks = {
            "request": [*before["request"], _bound, self._begin],
            "response": [*before["response"], _refuse_long_wait, self._end],
        }

    def _begin(self, request: Any) -> None:
        if request.method not in ("GET", "HEAD"):  # uploads are answered only when complete
            return
        with self._lock:
            if self._timer is None and not self._has_said:
                self._timer = threading.Timer(PATIENCE, self._say)
                self._timer.daemon = True
                self._timer.start()

    def _end(self, response: Any) -> None:
        if response.status_code != 429 and response.status_code < 500:  # others are retried
            with self._lock:
                self._stop()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _say(self) -> None:
        with self._lock:
            if self._timer is None or self._has_said:
                return
            self._has_said = True
        logger.warning(
            "Waiting for the Hub at %s: no answer yet, trying again for up to two minutes.", constants.ENDPOINT
        )


_watch = _Watch()


def _bound(request: Any) -> None:
    limits = {"HEAD": constants.HF_HUB_ETAG_TIMEOUT, "GET": constants.HF_HUB_DOWNLOAD_TIMEOUT}
    limit = limits.get(request.method, WRITING)
    timeout = request.extensions.get("timeout", {})
    request.extensions["timeout"] = {
        phase: min(timeout.get(phase) or limit, limit) for phase in ("connect", "read", "write", "pool")
    }


def _refuse_long_wait(response: Any) -> None:
    if response.status_code in (429, 503) and (_wait(response.headers) or 0) > SHORT_WAIT:
        response.read()
        hf_raise_for_status(response)


def _wait(headers: Mapping[str, str]) -> float | None:
    """Returns the seconds until the Hub accepts requests again, by its own or the standard header; None if unknown."""
    if limit := re.search(r"\br\s*=\s*0\b.*?\bt\s*=\s*(\d+)", headers.get("ratelimit", "")):
        return float(limit[1])
    after = headers.get("retry-after", "").strip()
    if after.isdigit():
        return float(after)
    try:
        return max(0.0, parsedate_to_datetime(after).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def _of_answer(response: Any) -> str:
    """Returns the reason for an error answer of the Hub."""
    status, code = response.status_code, response.headers.get("x-error-code")
    said = response.headers.get("x-error-message", "")
    try:
        request = response.request
        path, method, has_token = urlsplit(str(request.url)).path, request.method, "authorization" in request.headers
    except RuntimeError:  # a response without a request
        path, method, has_token = "", "GET", False
    place = _PLACE.search(path)
    named = {name: unquote(value or "") for name, value in (place.groupdict() if place else {}).items()}
    if code == "GatedRepo":
        return _GATED
    if said == "Access to this resource is disabled.":
        return "the Hub has disabled it: choose another"
    if code == "RevisionNotFound":
        return _NO_REVISION.format(_called(named.get("revision")))
    if code == "EntryNotFound":
        return f"the repository has no such file{_called(named.get('file'))}: check its name on the repository's page"
    if status in (401, 403) and method not in ("GET", "HEAD") and "/paths-info/" not in path:
        owner = re.search(r"/(?:models|datasets|spaces)/([^/]+)/", path)
        where = f" to {owner[1]}" if owner else " there"
        return f"the Hub refused the token: {_LOGIN} and a token that may write{where}"
    if status == 401 and (has_token or "Invalid credentials" in said):
        return _REFUSED
    if status == 403:
        return (
            f"the Hub does not let you read it: request access on its page, or {_LOGIN} and a token that may read it"
        )
    if status in (401, 404) and (code == "RepoNotFound" or status == 401):
        return _ABSENT
    if status == 404:
        return "the Hub has no such repository, revision or file (404): check the id and HF_ENDPOINT"
    if status == 429:
        wait = _wait(response.headers)
        return f"the Hub's rate limit is reached: try again {_later(wait)}, or {_LOGIN} for a higher limit"
    if status == 408 or status >= 500:
        phrase = f"{status} {response.reason_phrase}".strip()
        return f"the Hub is not available ({phrase}): try again {_later(_wait(response.headers))}"
    said = " ".join((said or _body(response)).split())[:200].rstrip(".")
    return f"the Hub refused the request ({status}{f', {said}' if said else ''})"


def _called(name: str | None) -> str:
    return f" ({name})" if name else ""


def _later(wait: float | None) -> str:
    if wait is None:
        return "in a few minutes"
    return f"in {math.ceil(wait)} s" if wait < 120 else f"in {math.ceil(wait / 60)} minutes"


def _body(response: Any) -> str:
    """Returns the error in the body of an answer; empty if there is none."""
    try:
        return str(response.json().get("error") or "")
    except (RuntimeError, ValueError, AttributeError):  # not read, not JSON, not an object
        return ""


def _of_silence(chain: list[BaseException], local: str) -> str | None:
    """Returns the reason for a missing or broken answer; None if the Hub is not involved."""
    kinds = _kinds(chain)
    for one in chain:  # datasets drops the exception and names its class in the message
        kinds |= set(re.findall(r"on the (?:Hugging Face )?Hub(?: either: | \()(\w+)", str(one)))
    if "DatasetNotFoundError" in kinds:
        said = " ".join(map(str, chain))
        return _GATED if "gated dataset" in said else _NO_REVISION.format("") if "Revision '" in said else _ABSENT
    is_absent = not kinds.isdisjoint({"LocalEntryNotFoundError", "RevisionResolutionError"})  # in the cache
    is_sent = any(_is_sending(one) for one in chain)
    instead = "" if is_sent else f", or pass a local {local}"
    if "OfflineModeIsEnabled" in kinds or (is_absent and constants.HF_HUB_OFFLINE):
        where = "" if is_sent else " and it is not in the cache"
        return f"offline mode is on{where}: unset HF_HUB_OFFLINE{instead}"
    at_hub = [one for one in chain if _is_of_hub(one)]
    for one in at_hub:
        if (number := _disk_error(one)) is not None:
            return (
                f"it cannot be stored in the cache at {constants.HF_HUB_CACHE}: {write_reason(number)}; free space, "
                "allow writing there, or set HF_HOME to another folder"
            )
    proxy = next((f" and the proxy in {name}" for name in _PROXIES if os.environ.get(name)), "")
    if any(isinstance(one, ssl.SSLError) for one in chain):
        return (
            f"the Hub's certificate cannot be verified: check the clock{proxy}, or set SSL_CERT_FILE to the "
            "certificates of your network"
        )
    if "ProxyError" in kinds:
        return f"the proxy blocks the connection to the Hub: check the network{proxy}"
    if kinds & {"ConnectError", "ConnectTimeout"}:
        return f"the Hub cannot be reached: check the network{proxy}{instead}"
    if kinds & {"TimeoutException", "ReadTimeout"}:
        return (
            f"the Hub sent nothing for {constants.HF_HUB_DOWNLOAD_TIMEOUT} s, several times in a row: try again, or "
            "set HF_HUB_DOWNLOAD_TIMEOUT to more seconds"
        )
    if "LocalProtocolError" in kinds or any(isinstance(one, UnicodeEncodeError) for one in at_hub):
        return f"the token has invalid characters: {_LOGIN} again, or check HF_TOKEN"
    if kinds & {"UnsupportedProtocol", "InvalidURL"}:
        return f"{constants.ENDPOINT} is not the address of a Hub: check HF_ENDPOINT"
    if kinds & _BREAKS:
        return "the connection to the Hub broke: try again"
    if any("Consistency check failed" in str(one) for one in chain):
        return "the download from the Hub is incomplete or damaged: try again"
    if kinds & {"FileMetadataError", "DecodingError", "TooManyRedirects"} or any(
        isinstance(one, (json.JSONDecodeError, AssertionError, KeyError, TypeError)) for one in at_hub
    ):
        return f"the server at {constants.ENDPOINT} is not a Hub, or its answer is invalid: check HF_ENDPOINT{proxy}"
    if "XetDownloadError" in kinds or any("xet" in str(one).lower() for one in at_hub):
        return "the Hub's storage did not deliver it: try again, or set HF_HUB_DISABLE_XET=1 to download without Xet"
    if is_absent:
        return f"the Hub cannot be reached and it is not in the cache: check the network{proxy}{instead}"
    if "HFValidationError" in kinds:
        return "it is not a valid id on the Hub: ids have the form ORG/NAME"
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yields an exception and its causes, from the last to the first."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__


def _kinds(chain: list[BaseException]) -> set[str]:
    """Returns the names of all classes of the exceptions. Names survive a change of huggingface_hub's HTTP client."""
    return {kind.__name__ for one in chain for kind in type(one).__mro__}


def _is_of_hub(error: BaseException) -> bool:
    """Returns whether huggingface_hub or this module raised the error. The class of a disk error does not show it."""
    places = (str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__))
    # Excludes the dataclasses of huggingface_hub, which check transformers' configurations.
    return any(
        place == __name__ or (place.startswith("huggingface_hub.") and place != "huggingface_hub.dataclasses")
        for place in places
    )


def _is_sending(error: BaseException) -> bool:
    """Returns whether the error was raised while writing to the Hub."""
    return any(
        frame.f_globals.get("__name__") == "huggingface_hub.hf_api" and frame.f_code.co_name in _SENDERS
        for frame, _ in traceback.walk_tb(error.__traceback__)
    )


_SENDERS = {"create_repo", "create_commit", "preupload_lfs_files", "upload_folder", "upload_large_folder"}
_OF_WRITING = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM, errno.EEXIST,
    errno.ENOTDIR,
}  # fmt: skip


def _disk_error(error: BaseException) -> int | None:
    """Returns the error number of a failed write to the cache, also by Xet, which is written in Rust; else None."""
    found = re.search(r"\(os error (\d+)\)", str(error))
    number = error.errno if isinstance(error, OSError) else int(found[1]) if found else None
    file = getattr(error, "filename", None)
    is_ours = file is None or os.path.realpath(os.fsdecode(file)).startswith(os.path.realpath(constants.HF_HOME))
    return number if number in _OF_WRITING and is_ours else None
