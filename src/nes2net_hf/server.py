"""
The HTTP server of `nes2net serve` (needs the extra `serve`). It receives a recording and returns its verdict as JSON.

    POST /judge    the bytes of a recording, a form with one file, or JSON as for `EndpointHandler`
    GET  /health   whether the model is loaded, its name, and the version

Every answer of /judge is an object with two fields. `results` has an entry for each judged recording, channel or
track, as `nes2net detect --format jsonl` writes it. `error` is null or a sentence. The status is one of:

    200  judged; with several results, each one says whether its part could be judged
    400  the request has no recording            413  it is too large
    415  its body is compressed                  422  the recording cannot be judged: `error` says why
    500  the server failed                       503  busy, shutting down, or timed out
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
import sys
import threading
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, cast

import python_multipart  # noqa: F401 - so that a missing package is reported at the start, not at the first form
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from .audio import AudioError
from .detection import Result
from .endpoint import MAX_MEGABYTES, MAX_SECONDS, EndpointHandler
from .errors import DetectionError, UsageError
from .page.guard import PageGuard
from .version import __version__

logger = logging.getLogger(__name__)

QUEUE, TIMEOUT = 4, 600.0
MAX_JSON_VALUES = 5_000_000  # 5 minutes at 16 kHz; each value takes up to ten times its bytes in Python
GRACE = 5.0  # seconds to answer requests after the server is told to stop
GONE = 499  # the client has disconnected
NAMELESS = "<body>"
WAYS = "POST a recording to /judge, or GET /health"
ONE_FILE = "send one file, as with `curl -F file=@call.mp3`"


class _Body(NamedTuple):
    content: bytes
    is_json: bool = False
    name: str = NAMELESS


class _Stopped(Exception):
    """Nobody is waiting for the verdict any more."""


class Judge:
    """
    Answers requests to /judge. One recording is judged at a time, in one thread, because a model uses all cores. Other
    requests wait. If `queue` requests are waiting, a new one is refused before its body is read.

    Args:
        handler: judges the recordings.
        max_size: maximum size of a request in megabytes.
        queue: maximum number of requests that wait or are read, besides the one being judged.
        timeout: maximum time in seconds from a request's first byte to its verdict.
    """

    def __init__(
        self, handler: EndpointHandler, max_size: int = MAX_MEGABYTES, queue: int = QUEUE, timeout: float = TIMEOUT
    ) -> None:
        self._handler = handler
        self._max_bytes = max_size * 1_000_000
        self._timeout = timeout
        self._places = threading.BoundedSemaphore(queue + 1)  # also released by the judging thread
        self._thread = ThreadPoolExecutor(1, "judging")
        self._ending = asyncio.Event()

    async def answer(self, request: Request) -> Response:
        if not self._places.acquire(blocking=False):
            raise HTTPException(503, "Too many recordings are waiting: try again later.", {"Retry-After": "10"})
        answered = asyncio.ensure_future(self._read_and_judge(request))
        ending = asyncio.ensure_future(self._ending.wait())
        try:
            await asyncio.wait({answered, ending}, timeout=self._timeout, return_when=asyncio.FIRST_COMPLETED)
            if answered.done():
                return answered.result()
            if self._ending.is_set():
                raise HTTPException(503, "The server is shutting down: try again later.", {"Retry-After": "10"})
            raise HTTPException(
                503,
                f"The recording was not judged within {self._timeout:g} s: send a shorter one, or start the server "
                "with a larger --timeout.",
            )
        finally:
            answered.cancel()
            ending.cancel()

    def end_soon(self) -> None:
        """Ends all requests after a few seconds. Must be called in the event loop."""
        asyncio.get_running_loop().call_later(GRACE, self._ending.set)

    def close(self) -> None:
        """Waits for the thread. Python aborts if it exits while a thread is inside torch."""
        self._thread.shutdown(cancel_futures=True)

    async def _read_and_judge(self, request: Request) -> Response:
        stop = threading.Event()
        job = None
        try:
            job = self._thread.submit(self._judged, await self._read(request), stop)
        except ClientDisconnect:
            return Response(status_code=GONE)
        finally:
            if job is None:
                self._places.release()
            else:  # only when the job is done, because its body is in memory until then
                job.add_done_callback(lambda _: self._places.release())
        judged: asyncio.Future[Response] = asyncio.wrap_future(job)
        gone: asyncio.Future[None] = asyncio.ensure_future(_has_gone(request))
        try:
            await asyncio.wait(cast("list[asyncio.Future[Any]]", [judged, gone]), return_when=asyncio.FIRST_COMPLETED)
            return judged.result() if judged.done() else Response(status_code=GONE)
        finally:
            stop.set()
            job.cancel()
            judged.cancel()
            gone.cancel()

    async def _read(self, request: Request) -> _Body:
        """Returns the body, without ever holding more than the limit. Raises HTTPException."""
        if request.headers.get("content-encoding", "identity") != "identity":
            raise HTTPException(415, "The body is compressed (Content-Encoding): send it without compression.")
        declared = request.headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared) > self._max_bytes:
            raise self._too_large()
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "multipart/form-data":
            return await self._read_form(request)
        body = bytearray()
        async for chunk in self._counted(request):
            body += chunk
        return _Body(bytes(body), kind == "application/json")

    async def _read_form(self, request: Request) -> _Body:
        parser = MultiPartParser(request.headers, self._counted(request), max_files=1, max_fields=0)
        parser.spool_max_size = self._max_bytes + 1  # keeps it in memory, never on disk
        try:
            form = await parser.parse()
        except MultiPartException:
            raise HTTPException(400, f"The form cannot be read: {ONE_FILE}.") from None
        try:
            for _, file in form.multi_items():
                if not isinstance(file, str):
                    return _Body(await file.read(), name=file.filename or NAMELESS)
        finally:
            await form.close()
        raise HTTPException(400, f"The form has no file: {ONE_FILE}.")

    async def _counted(self, request: Request) -> AsyncGenerator[bytes, None]:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > self._max_bytes:
                raise self._too_large()
            yield chunk

    def _too_large(self) -> HTTPException:
        return HTTPException(
            413,
            f"The request has more than the limit of {self._max_bytes / 1e6:g} MB: cut the recording, use a "
            "compressed audio format, or start the server with a larger --max-size.",
        )

    def _judged(self, body: _Body, stop: threading.Event) -> Response:
        """Runs in the judging thread."""

        def on_batch(_: float) -> None:
            if stop.is_set():
                raise _Stopped

        try:
            results = self._handler.judge(_parsed(body), body.name, on_batch)
            failed = all(result.error for result in results)
            return respond(results[0].error if failed else None, 422 if failed else 200, results)
        except AudioError as error:
            return respond(str(error), 400)
        except (HTTPException, _Stopped):
            raise
        except (DetectionError, MemoryError):
            logger.error("out of memory while a recording was judged")
            return respond("The server ran out of memory: send a shorter recording, or try again later.", 503)
        except Exception as error:
            logger.error("%s could not be judged (%s: %s); please report it", body.name, type(error).__name__, error)
            logger.debug("its traceback", exc_info=error)
            return respond("The server failed while judging the recording: see its log.", 500)


def _parsed(body: _Body) -> Any:
    """Returns the input for `EndpointHandler`. Raises HTTPException."""
    if not body.content:
        raise HTTPException(400, "The request has no body: send the bytes of a recording.")
    if not body.is_json:
        return {"inputs": body.content}
    if sum(map(body.content.count, (b",", b"[", b"{"))) > MAX_JSON_VALUES:
        raise HTTPException(413, f"The JSON has more than {MAX_JSON_VALUES:,} values: send the bytes of a file.")
    try:
        return json.loads(body.content)
    except (ValueError, RecursionError):
        raise HTTPException(400, "The body is not JSON, but its Content-Type says so: send it as audio/*.") from None


async def _has_gone(request: Request) -> None:
    """Returns when the client closes the connection. The request must have been read to its end."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def respond(
    error: str | None, status: int, results: Sequence[Result] = (), headers: dict[str, str] | None = None
) -> Response:
    """Returns an answer in the form of /judge; ASCII, because a sentence may quote invalid Unicode."""
    content = {"error": error, "results": [result.to_dict() for result in results]}
    return _json(content, status, headers)


def _json(content: dict[str, Any], status: int = 200, headers: Any = None) -> Response:
    return Response(json.dumps(content, allow_nan=False) + "\n", status, headers, "application/json")


def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    sentences = {
        404: f"There is nothing at {request.url.path}: {WAYS}.",
        405: f"{request.method} is not supported here: {WAYS}.",
    }
    sentence = sentences.get(error.status_code, error.detail)
    return respond(sentence, error.status_code, headers=dict(error.headers or {}))


def build_app(handler: EndpointHandler, judge: Judge, host: str, allow_hosts: Sequence[str] = ()) -> Starlette:
    """Returns the ASGI application; arguments as in `serve`."""

    async def health(_: Request) -> Response:
        return _json({"status": "ok", "model": handler.model_name, "version": __version__})

    return Starlette(
        routes=[Route("/judge", judge.answer, methods=["POST"]), Route("/health", health, methods=["GET"])],
        middleware=[Middleware(PageGuard, bound=host, more=allow_hosts, refuse=respond)],
        exception_handlers={HTTPException: _refuse},
    )


class Server(uvicorn.Server):
    """A server that also ends the current judging when it shuts down."""

    def __init__(self, app: Starlette, judge: Judge) -> None:
        super().__init__(
            uvicorn.Config(
                app, log_level="warning", access_log=False, server_header=False, lifespan="off", ws="none",
                timeout_graceful_shutdown=round(GRACE) + 5,
            )
        )  # fmt: skip
        self._judge = judge

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._judge.end_soon()
        await super().shutdown(sockets)


def serve(
    model: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    max_size: int = MAX_MEGABYTES,
    max_duration: float = MAX_SECONDS,
    queue: int = QUEUE,
    timeout: float = TIMEOUT,
    allow_hosts: Sequence[str] = (),
) -> None:
    """
    Serves until it is interrupted or terminated.

    Args:
        model: folder, Hub id or official checkpoint; the bundled demonstration model if None.
        max_size: maximum size of a request in megabytes.
        max_duration: maximum length of a recording in seconds, measured while decoding, not by its header.
        queue, timeout: as in `Judge`.
        allow_hosts: other host names under which clients reach the server, such as a proxy's; `*` allows all.

    Raises:
        UsageError: host and port cannot be bound.
        ModelError: the model cannot be loaded.
        KeyboardInterrupt: it was interrupted or terminated before it started serving.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with bind(host, port) as taken:  # before the slow loading of the model
        handler = EndpointHandler(model, max_duration, max_size)
        judge = Judge(handler, max_size, queue, timeout)
        server = Server(build_app(handler, judge, host, allow_hosts), judge)
        taken.listen(128)
        name = f"[{host}]" if ":" in host else host
        print(f"Serving {handler.model_name} at http://{name}:{port}; press Ctrl+C to stop.", flush=True)
        try:
            server.run(sockets=[taken])
        except KeyboardInterrupt:  # uvicorn has shut down cleanly and raises the signal again
            pass
        finally:
            judge.close()


def bind(host: str, port: int) -> socket.socket:
    """Returns a bound socket that does not listen yet. Raises UsageError."""
    taken = None
    try:
        [(family, kind, protocol, _, address), *_] = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        taken = socket.socket(family, kind, protocol)
        if sys.platform != "win32":  # Windows would share a port that is in use
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(address)
        return taken
    except (OSError, UnicodeError):  # UnicodeError: the host has invalid characters
        if taken is not None:
            taken.close()
        raise UsageError(
            f"the server cannot use {host}:{port}: choose another --port, or a --host of this machine."
        ) from None
