"""The server of `nes2net serve` answers every request in one form, and no request blocks the others."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import typer

from nes2net_cli.app import app as command_line
from nes2net_hf import __version__
from nes2net_hf.detection import Result
from nes2net_hf.endpoint import EndpointHandler
from nes2net_hf.pretrained.load import DEMO_MODEL

pytest.importorskip("uvicorn", reason="uvicorn is not installed: pip install 'nes2net_hf[serve]'")
pytest.importorskip("python_multipart", reason="python-multipart is not installed: pip install 'nes2net_hf[serve]'")

import httpx

from nes2net_hf import server as server_module
from nes2net_hf.server import Judge, Server, bind, build_app
from tests.helpers import uninstall

ROOT = Path(__file__).parents[1]
SPOOF = DEMO_MODEL.parents[1] / "samples" / "spoof.flac"
SOUND = SPOOF.read_bytes()


class Held:
    """A handler that judges batch after batch until `finish` is set, like a long recording."""

    model_name = "held"

    def __init__(self) -> None:
        self.began, self.finish = threading.Event(), threading.Event()
        self.stopped = self.running = self.most = 0

    def judge(self, data: Any, name: str | None, progress: Callable[[float], None]) -> list[Result]:
        self.running += 1
        self.most = max(self.most, self.running)
        self.began.set()
        try:
            while not self.finish.wait(0.02):
                progress(1.0)
        except BaseException:
            self.stopped += 1
            raise
        finally:
            self.running -= 1
        return [Result(name or "", score=1.0, label="bonafide")]


@contextmanager
def serving(handler: Any, allow_hosts: Sequence[str] = (), **limits: Any) -> Iterator[str]:
    """Yields the address of a server in a thread of this process."""
    judge = Judge(handler, **limits)
    taken = bind("127.0.0.1", 0)
    taken.listen()
    server = Server(build_app(handler, judge, "127.0.0.1", allow_hosts), judge)
    thread = threading.Thread(target=server.run, args=([taken],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        judge.close()
        taken.close()
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def handler() -> EndpointHandler:
    return EndpointHandler(str(DEMO_MODEL), max_duration=60, max_size=1)


@pytest.fixture(scope="module")
def address(handler: EndpointHandler) -> Iterator[str]:
    with serving(handler, max_size=1) as address:
        yield address


def post(address: str, status: int, **request: Any) -> dict[str, Any]:
    answer = httpx.post(f"{address}/judge", timeout=60, **request)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json" and "access-control-allow-origin" not in answer.headers
    content = answer.json()
    assert list(content) == ["error", "results"] and (content["error"] is None) == (status == 200)
    if status != 200:
        assert content["error"].endswith(".") and "\n" not in content["error"] and "Traceback" not in content["error"]
    return content


FORMS = {
    "bytes": {"content": SOUND},
    "bytes as curl --data-binary sends them": {
        "content": SOUND, "headers": {"Content-Type": "application/x-www-form-urlencoded"},
    },
    "chunks": {"content": SOUND, "headers": {"Transfer-Encoding": "chunked"}},
    "a form": {"files": {"file": ("call.flac", SOUND)}},
    "base64 in JSON": {"json": {"inputs": base64.b64encode(SOUND).decode()}},
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_a_recording_comes_in_any_form(address: str, handler: EndpointHandler, form: str) -> None:
    content = post(address, 200, **FORMS[form])
    [result] = content["results"]
    expected = handler({"inputs": SOUND})
    assert isinstance(expected, dict) and result.keys() == expected.keys()
    assert (result["label"], result["error"]) == ("spoof", None)
    assert result["score"] == pytest.approx(expected["score"], abs=1e-4)
    assert result["file"] == ("call.flac" if form == "a form" else "<body>")


def test_an_array_in_json_is_judged(address: str) -> None:
    samples, rate = soundfile.read(SPOOF, dtype="float32")
    values = [round(float(value), 3) for value in samples[:32_000]]
    [result] = post(address, 200, json={"inputs": {"array": values, "sampling_rate": rate}})["results"]
    assert result["label"] == "spoof" and result["duration"] == 2.0


def test_several_results_are_one_answer(handler: EndpointHandler, address: str, monkeypatch: Any) -> None:
    """There is one result per channel, and each says whether the channel could be judged."""
    monkeypatch.setattr(handler._detector, "channels", "each")
    samples, rate = soundfile.read(SPOOF, dtype="float32")

    def stereo(*channels: Any) -> bytes:
        return encoded(np.stack(channels, 1), rate)

    results = post(address, 200, content=stereo(samples, samples[::-1]))["results"]
    assert [(result["channel"], result["error"]) for result in results] == [(0, None), (1, None)]
    results = post(address, 200, content=stereo(samples, 0 * samples))["results"]
    assert results[0]["label"] == "spoof" and "is silent in channel 1" in results[1]["error"]
    content = post(address, 422, content=stereo(0 * samples, 0 * samples))
    assert {result["label"] for result in content["results"]} == {None}
    assert content["error"] == content["results"][0]["error"]


def encoded(samples: Any, rate: int, form: str = "FLAC") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form)
    return file.getvalue()


JSON = {"Content-Type": "application/json"}
NOT_JUDGED: dict[str, tuple[int, dict[str, Any], str]] = {
    "words": (422, {"content": b"Dear Sir or Madam"}, "<body> is not an audio or video file"),
    "words in a form": (422, {"files": {"f": ("letter.txt", b"Dear Sir")}}, "letter.txt is not an audio"),
    "a truncated file": (422, {"content": SOUND[:20_000]}, "truncated"),
    "silence": (422, {"content": encoded(np.zeros(16_000), 16_000)}, "is silent"),
    "too long": (422, {"content": encoded(np.zeros(61 * 8_000), 8_000)}, "is longer than the limit of 60 seconds"),
    "nothing": (400, {"content": b""}, "The request has no body"),
    "a form without a file": (400, {"files": {"a": (None, "b")}}, "The form cannot be read: send one file"),
    "a form of two files": (400, {"files": [("a", SOUND), ("b", SOUND)]}, "The form cannot be read: send one file"),
    "an empty form": (
        400,
        {"content": b"--x--\r\n", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
        "The form has no file",
    ),
    "a form without a boundary": (
        400, {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, "The form cannot be read",
    ),
    "half a form": (
        400,
        {"content": b"--x\r\nContent-", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
        "The form",
    ),
    "half a JSON": (400, {"content": b'{"inputs": "', "headers": JSON}, "The body is not JSON"),
    "deep JSON": (400, {"content": b"[" * 200_000, "headers": JSON}, "The body is not JSON"),
    "JSON of bytes": (400, {"content": b"\xff\xfe\xff", "headers": JSON}, "The body is not JSON"),
    "JSON without inputs": (400, {"json": {"input": "x"}}, "`inputs` is missing"),
    "a name that is no Unicode": (
        400, {"content": rb'{"inputs": "x", "parameters": {"\ud800": 1}}', "headers": JSON}, "no parameters are",
    ),
    "a compressed body": (415, {"content": SOUND, "headers": {"Content-Encoding": "gzip"}}, "is compressed"),
    "too large": (413, {"content": bytes(1_000_001)}, "more than the limit of 1 MB"),
    "a form that is too large": (413, {"files": {"f": bytes(1_000_001)}}, "more than the limit of 1 MB"),
}  # fmt: skip


@pytest.mark.parametrize("case", NOT_JUDGED)
def test_what_cannot_be_judged_is_a_status_and_a_sentence(address: str, case: str) -> None:
    status, request, words = NOT_JUDGED[case]
    content = post(address, status, **request)
    assert words in content["error"], content["error"]
    assert all(result["error"] for result in content["results"])


def test_json_of_too_many_values_is_refused_before_python_holds_them(address: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(server_module, "MAX_JSON_VALUES", 1000)
    body = {"inputs": {"array": [0.5] * 1000, "sampling_rate": 16_000}}
    assert "has more than 1,000 values" in post(address, 413, json=body)["error"]


def test_a_body_in_chunks_is_refused_once_it_is_too_large(address: str) -> None:
    chunk = b"C350\r\n" + bytes(50_000) + b"\r\n"
    with connected(address) as client:
        client.sendall(b"POST /judge HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        sent = 0
        while not select.select([client], [], [], 0.005)[0]:
            client.sendall(chunk)
            sent += 50_000
            assert sent < 30_000_000  # otherwise it would be read forever
        assert client.recv(4096).startswith(b"HTTP/1.1 413 ")
    assert sent > 1_000_000


def test_a_body_that_declares_too_much_is_refused_unread(address: str) -> None:
    head = b"POST /judge HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n"
    with connected(address) as client:
        client.sendall(head)
        assert client.recv(4096).startswith(b"HTTP/1.1 413 ")


def connected(address: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=20)


def test_other_places_and_methods(address: str) -> None:
    for method, path, status in (
        ("GET", "/", 404), ("POST", "/", 404), ("GET", "/judge", 405), ("PUT", "/judge", 405),
        ("POST", "/health", 405), ("OPTIONS", "/judge", 405),
    ):  # fmt: skip
        answer = httpx.request(method, address + path)
        assert answer.status_code == status and "POST a recording to /judge" in answer.json()["error"]
        assert answer.json()["results"] == []


def test_health_names_the_model(address: str) -> None:
    answer = httpx.get(f"{address}/health")
    assert answer.status_code == 200
    assert answer.json() == {"status": "ok", "model": str(DEMO_MODEL), "version": __version__}


@pytest.mark.parametrize(
    "headers, status", [({"Host": "evil.example"}, 400), ({"Origin": "https://evil.example"}, 403)]
)
def test_pages_of_others_do_not_come_through(address: str, headers: dict[str, str], status: int) -> None:
    post(address, status, content=SOUND, headers=headers)
    answer = httpx.get(f"{address}/health", headers=headers)
    assert answer.status_code == status and answer.json()["error"]


def test_a_host_that_is_allowed_comes_through() -> None:
    with serving(Held(), ["detector.example"]) as address:
        for name, status in (("detector.example", 200), ("evil.example", 400)):
            assert httpx.get(f"{address}/health", headers={"Host": name}).status_code == status


def test_one_is_judged_at_a_time_some_wait_and_more_are_refused() -> None:
    held = Held()
    with serving(held, queue=2) as address, ThreadPoolExecutor() as pool:
        waiting = [pool.submit(post, address, 200, content=SOUND) for _ in range(3)]
        assert held.began.wait(20)
        until(lambda: httpx.post(f"{address}/judge", content=b"x").status_code == 503)
        refused = httpx.post(f"{address}/judge", content=SOUND)
        assert refused.status_code == 503 and int(refused.headers["retry-after"]) > 0
        assert "Too many recordings are waiting" in refused.json()["error"]
        started = time.monotonic()
        assert httpx.get(f"{address}/health").status_code == 200 and time.monotonic() - started < 2
        held.finish.set()
        assert [one.result()["results"][0]["label"] for one in waiting] == ["bonafide"] * 3
        assert held.most == 1
        post(address, 200, content=SOUND)


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_two_at_once_get_their_own_verdicts(address: str) -> None:
    other = (SPOOF.parent / "bonafide.flac").read_bytes()
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda sound: post(address, 200, content=sound), [SOUND, other] * 2))
    assert [answer["results"][0]["label"] for answer in answers] == ["spoof", "bonafide"] * 2


def test_who_goes_away_holds_up_nobody() -> None:
    """The client disconnects while it is judged, while it waits, or in the middle of its body."""
    held = Held()
    head = f"POST /judge HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(SOUND)}\r\n\r\n".encode()
    with serving(held, queue=2) as address:
        clients = [connected(address) for _ in range(3)]
        clients[0].sendall(head + SOUND)
        assert held.began.wait(20)
        clients[1].sendall(head + SOUND)
        clients[2].sendall(head + SOUND[:1000])
        until(lambda: httpx.post(f"{address}/judge", content=b"x").status_code == 503)
        for client in reversed(clients):
            client.close()
        until(lambda: held.stopped == 1)
        held.finish.set()
        for _ in range(4):  # all places in the queue are free again
            post(address, 200, content=SOUND)
        assert held.stopped == 1


def test_a_request_that_takes_too_long_is_ended() -> None:
    """The request takes too long to judge, or is sent too slowly."""
    held = Held()
    with serving(held, queue=0, timeout=1) as address:
        assert "not judged within 1 s" in post(address, 503, content=SOUND)["error"]
        until(lambda: held.stopped == 1)
        with connected(address) as client:
            client.sendall(b"POST /judge HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc")
            assert client.recv(4096).startswith(b"HTTP/1.1 503 ")
        held.finish.set()
        post(address, 200, content=SOUND)


def test_the_end_of_the_server_is_said_to_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "GRACE", 0.2)
    held = Held()
    with ThreadPoolExecutor() as pool:
        with serving(held) as address:
            waiting = [pool.submit(post, address, 503, content=SOUND) for _ in range(2)]
            assert held.began.wait(20)
            time.sleep(0.2)
        assert ["The server is shutting down" in one.result()["error"] for one in waiting] == [True, True]
    assert held.stopped == 1


@pytest.mark.parametrize("error, status", [(MemoryError(), 503), (RuntimeError("secret"), 500)])
def test_what_fails_inside_is_a_sentence(error: Exception, status: int) -> None:
    class Failing(Held):
        def judge(self, *_: Any) -> list[Result]:
            raise error

    with serving(Failing()) as address:
        assert "secret" not in post(address, status, content=SOUND)["error"]


def test_a_port_that_is_taken_is_a_sentence(nes2net: Any) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        run = nes2net("serve", "--port", other.getsockname()[1])
    assert run.code == 2 and run.err.startswith("Error: the server cannot use 127.0.0.1:")
    run = nes2net("serve", "--host", "a..b")
    assert run.code == 2 and run.err.startswith("Error: the server cannot use a..b:8000")
    signal.signal(signal.SIGTERM, before)


def test_a_model_that_is_not_there_is_a_sentence(nes2net: Any, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    run = nes2net("serve", "--port", free_port(), "--model", tmp_path / "none")
    signal.signal(signal.SIGTERM, before)
    assert run.code == 2 and str(tmp_path / "none") in run.err and run.out == ""


def test_without_uvicorn_the_command_names_what_to_install(nes2net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    uninstall(monkeypatch, "uvicorn", "nes2net_hf.server")
    run = nes2net("serve")
    assert run.code == 2 and run.err == "Error: uvicorn is not installed: pip install 'nes2net_hf[serve]'.\n"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def dockerfile() -> list[tuple[str, str]]:
    """Returns the Dockerfile's instructions, as pairs of name and arguments."""
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    return [
        (name, rest.strip())
        for name, _, rest in (line.partition(" ") for line in lines if line.strip()[:1] not in ("", "#"))
    ]


def entry_point() -> list[str]:
    [words] = [json.loads(rest) for name, rest in dockerfile() if name == "ENTRYPOINT"]
    return words


def served_by(words: Sequence[str]) -> dict[str, Any]:
    """Returns the options in a command line of `nes2net serve`."""
    assert words[:2] == ["nes2net", "serve"]
    command = typer.main.get_command(command_line).commands["serve"]  # type: ignore[attr-defined]
    return command.make_context("serve", list(words[2:])).params


def test_the_dockerfile_starts_what_there_is() -> None:
    """Docker is not available here, so the names in the Dockerfile are compared with the checkout."""
    options = served_by(entry_point())
    instructions = dict(dockerfile())
    assert options["host"] == "0.0.0.0" and str(options["port"]) == instructions["EXPOSE"]
    assert f"127.0.0.1:{options['port']}/health" in instructions["HEALTHCHECK"]
    assert instructions["USER"] not in ("", "root", "0")
    [extra] = re.findall(r"'\.\[(\w+)\]'", (ROOT / "Dockerfile").read_text())
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f"\n{extra} = [" in pyproject
    minor = int(re.findall(r"^FROM python:3\.(\d+)-slim$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[0])
    assert minor >= int(re.findall(r'requires-python = ">=3\.(\d+)"', pyproject)[0])


def test_the_image_holds_what_the_package_is_built_from() -> None:
    copied = {word for name, rest in dockerfile() if name == "COPY" for word in rest.split()[:-1]}
    assert all((ROOT / name).exists() for name in copied)
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert copied == {line[1:] for line in ignored if line.startswith("!")} and "*" in ignored
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    needed = re.findall(r'^(?:readme = )?"?([\w./]+)"? = "nes2net_hf/', pyproject, re.MULTILINE)
    needed += ["README.md", "LICENSE", "LICENSES", "src/nes2net_hf", "src/nes2net_cli", "pyproject.toml"]
    assert {name.split("/")[0] for name in needed} == copied


def readme() -> list[list[str]]:
    from tests.helpers import commands

    return list(commands("docs/judging.md"))


def test_the_readme_runs_the_image_as_it_can_be_run() -> None:
    runs = [words for words in readme() if words[:2] == ["docker", "run"]]
    [build] = [words for words in readme() if words[:2] == ["docker", "build"]]
    image = build[build.index("-t") + 1]
    assert runs and build[-1] == "."
    for words in runs:
        options = served_by(entry_point() + words[words.index(image) + 1 :])
        assert words[words.index("-p") + 1].endswith(f":{options['port']}")
    mounted = [words[words.index("-v") + 1].split(":")[1] for words in runs if "-v" in words]
    assert mounted == [options["model"]]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot be asked to end there")
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_the_readmes_server_answers_the_readmes_requests(end: signal.Signals, tmp_path: Path) -> None:
    """Runs the real command and sends requests with curl. At a signal it exits with 0 and leaves no files."""
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    (tmp_path / "temporary").mkdir()
    samples, rate = soundfile.read(SPOOF, dtype="float32")
    (tmp_path / "call.mp3").write_bytes(encoded(samples, rate, "MP3"))
    [words] = [words for words in readme() if words == ["nes2net", "serve"]]
    requests = [words for words in readme() if words[0] == "curl"]
    assert len(requests) == 3
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "nes2net_cli", *words[1:], "--port", str(port)], cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path / "temporary"), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == f"Serving nes2net-demo at http://127.0.0.1:{port}; press Ctrl+C to stop.\n"
        for request in requests:
            line = shlex.join(request).replace(":8000", f":{port}")
            answer = json.loads(
                subprocess.run(shlex.split(line), cwd=tmp_path, capture_output=True, check=True).stdout
            )
            if line.endswith("/health"):
                assert answer["status"] == "ok"
            else:
                assert answer["error"] is None and answer["results"][0]["label"] == "spoof"
        assert list((tmp_path / "temporary").iterdir()) == []
        process.send_signal(end)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 0 and out == "" and "Traceback" not in err and len(err.splitlines()) <= 1
    finally:
        process.kill()
        process.wait()
