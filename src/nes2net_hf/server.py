"""
The HTTP server of `nes2net serve` (needs the extra `serve`): a recording in, its verdict out as JSON.

    POST /judge    the bytes of a recording, a form with one file, or JSON as `EndpointHandler` takes it
    GET  /health   whether the model is loaded, which one, and the version

Every answer of /judge is an object with `results`, what `nes2net detect --format jsonl` writes, one of each recording,
channel or track that is judged, and `error`, null or a sentence:

    200  judged; where there are several results, each says by itself whether it could be
    400  the request holds no recording          413  it is too large
    415  its body is compressed                  422  the recording cannot be judged: `error` says why
    500  the server failed                       503  busy, ending, or the time is up
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

import python_multipart  # noqa: F401 - so that its absence is told at the start, and not at the first form
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
MAX_JSON_VALUES = 5_000_000  # 5 minutes at 16 kHz; Python holds each in up to ten times its bytes
GRACE = 5.0  # seconds that requests have to be answered once the server is told to end
GONE = 499  # nobody reads this answer
NAMELESS = "<body>"
WAYS = "POST a recording to /judge, or GET /health"
ONE_FILE = "send one file, as `curl -F file=@call.mp3` does"


class _Body(NamedTuple):
    content: bytes
    is_json: bool = False
    name: str = NAMELESS


class _Stopped(Exception):
    """Nobody waits for the verdict any more."""


class Judge:
    """
    The answers of /judge. One recording is judged at a time, in one thread, because a model takes all cores; the
    others wait, and a request that is more than `queue` behind is refused before its body is read.

    Args:
        handler: judges.
        max_size: megabytes that a request may have.
        queue: requests that may wait, or be read, beside the one that is judged.
        timeout: seconds that a request may take, from its first byte to its verdict.
    """

    def __init__(
        self, handler: EndpointHandler, max_size: int = MAX_MEGABYTES, queue: int = QUEUE, timeout: float = TIMEOUT
    ) -> None:
        self._handler = handler
        self._max_bytes = max_size * 1_000_000
        self._timeout = timeout
        self._places = threading.BoundedSemaphore(queue + 1)  # freed by the thread that judges, too
        self._thread = ThreadPoolExecutor(1, "judging")
        self._ending = asyncio.Event()

    async def answer(self, request: Request) -> Response:
        if not self._places.acquire(blocking=False):
            raise HTTPException(503, "Too many recordings wait already: try again later.", {"Retry-After": "10"})
        answered = asyncio.ensure_future(self._read_and_judge(request))
        ending = asyncio.ensure_future(self._ending.wait())
        try:
            await asyncio.wait({answered, ending}, timeout=self._timeout, return_when=asyncio.FIRST_COMPLETED)
            if answered.done():
                return answered.result()
            if self._ending.is_set():
                raise HTTPException(503, "The server is ending: try again later.", {"Retry-After": "10"})
            raise HTTPException(
                503,
                f"Not judged within {self._timeout:g} s: send a shorter recording, or start the server with a "
                "larger --timeout.",
            )
        finally:
            answered.cancel()
            ending.cancel()

    def end_soon(self) -> None:
        """Requests have a few seconds left; called in the event loop."""
        asyncio.get_running_loop().call_later(GRACE, self._ending.set)

    def close(self) -> None:
        """Waits for the thread: an interpreter that ends while one is inside torch aborts."""
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
            else:  # not before: its body is in memory
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
        """The body, of which no more than the limit is ever held; raises HTTPException."""
        if request.headers.get("content-encoding", "identity") != "identity":
            raise HTTPException(415, "The body is compressed (Content-Encoding): send the recording as it is.")
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
        parser.spool_max_size = self._max_bytes + 1  # in memory, never on the disk
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
        raise HTTPException(400, f"The form holds no file: {ONE_FILE}.")

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
            f"The request has more than the {self._max_bytes / 1e6:g} MB that are allowed here: cut the recording, "
            "send it in a compressed format, or start the server with a larger --max-size.",
        )

    def _judged(self, body: _Body, stop: threading.Event) -> Response:
        """In the thread."""

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
            return respond("The server failed while it judged the recording: its log says why.", 500)


def _parsed(body: _Body) -> Any:
    """What `EndpointHandler` takes; raises HTTPException."""
    if not body.content:
        raise HTTPException(400, "The request has no body: send the bytes of a recording.")
    if not body.is_json:
        return {"inputs": body.content}
    if sum(map(body.content.count, (b",", b"[", b"{"))) > MAX_JSON_VALUES:
        raise HTTPException(413, f"The JSON holds more than {MAX_JSON_VALUES:,} values: send the bytes of a file.")
    try:
        return json.loads(body.content)
    except (ValueError, RecursionError):
        raise HTTPException(400, "The body is no JSON, as its Content-Type says: send it as audio/*.") from None


async def _has_gone(request: Request) -> None:
    """Returns once the client has closed the connection; of a request that was read to its end."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def respond(
    error: str | None, status: int, results: Sequence[Result] = (), headers: dict[str, str] | None = None
) -> Response:
    """An answer in the one form that all have; ASCII, because a sentence may quote what is no Unicode."""
    content = {"error": error, "results": [result.to_dict() for result in results]}
    return _json(content, status, headers)


def _json(content: dict[str, Any], status: int = 200, headers: Any = None) -> Response:
    return Response(json.dumps(content, allow_nan=False) + "\n", status, headers, "application/json")


def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    sentences = {404: f"Nothing is at {request.url.path}: {WAYS}.", 405: f"Not by {request.method}: {WAYS}."}
    sentence = sentences.get(error.status_code, error.detail)
    return respond(sentence, error.status_code, headers=dict(error.headers or {}))


def build_app(handler: EndpointHandler, judge: Judge, host: str, allow_hosts: Sequence[str] = ()) -> Starlette:
    """The ASGI application; arguments as of `serve`."""

    async def health(_: Request) -> Response:
        return _json({"status": "ok", "model": handler.model_name, "version": __version__})

    return Starlette(
        routes=[Route("/judge", judge.answer, methods=["POST"]), Route("/health", health, methods=["GET"])],
        middleware=[Middleware(PageGuard, bound=host, more=allow_hosts, refuse=respond)],
        exception_handlers={HTTPException: _refuse},
    )


class Server(uvicorn.Server):
    """Ends what is being judged where it is told to end."""

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
        model: Hub id or folder; the bundled demonstration model if None.
        max_size: megabytes that a request may have.
        max_duration: seconds that a recording may have, counted as it is decoded, whatever its header declares.
        queue, timeout: as `Judge` takes them.
        allow_hosts: names under which clients find the server, beside this machine's own, such as a proxy's; `*` for
            any.

    Raises:
        UsageError: host and port cannot be bound.
        ModelError: the model cannot be loaded.
        KeyboardInterrupt: it was interrupted or terminated before it served.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with bind(host, port) as taken:  # before the model is loaded, which takes its time
        handler = EndpointHandler(model, max_duration, max_size)
        judge = Judge(handler, max_size, queue, timeout)
        server = Server(build_app(handler, judge, host, allow_hosts), judge)
        taken.listen(128)
        name = f"[{host}]" if ":" in host else host
        print(f"Serving {handler.model_name} at http://{name}:{port}; Ctrl+C ends it.", flush=True)
        try:
            server.run(sockets=[taken])
        except KeyboardInterrupt:  # uvicorn has ended in good order, and raises the signal again
            pass
        finally:
            judge.close()


def bind(host: str, port: int) -> socket.socket:
    """A socket at this place, which does not listen yet; raises UsageError."""
    taken = None
    try:
        [(family, kind, protocol, _, address), *_] = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        taken = socket.socket(family, kind, protocol)
        if sys.platform != "win32":  # where a port that is taken would be shared
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(address)
        return taken
    except (OSError, UnicodeError):  # a host with impossible characters is the latter
        if taken is not None:
            taken.close()
        raise UsageError(
            f"nothing can be served at {host}:{port}: choose another --port, or a --host of this machine."
        ) from None
