"""The guard of the page on this machine, and the page's limit on the length of recordings."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from nes2net_hf.audio import read_audio
from nes2net_hf.detection import Detector
from nes2net_hf.pretrained.load import DEMO_MODEL

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'nes2net_hf[demo]'")

import httpx
from gradio_client import handle_file

from nes2net_hf.page.guard import PageGuard
from nes2net_hf.page.page import build_page, choosing, judge, launch, show
from nes2net_hf.page.verdict import remarks
from tests.pages import BONAFIDE, SPOOF, connect, free_port
from tests.recordings import film_of


def answer(guard: PageGuard, kind: str = "http", method: str = "POST", **headers: str | list[str]) -> int:
    """Returns the status of a request; for a websocket, 200 if it is accepted and 403 if it is closed."""
    lines = [
        (name.replace("_", "-").encode(), value.encode())
        for name, values in headers.items()
        for value in ([values] if isinstance(values, str) else values)
    ]
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    scope = {"type": kind, "headers": lines, "path": "/gradio_api/upload"}
    asyncio.run(guard(scope | ({"method": method} if kind == "http" else {}), receive, send))
    return 403 if sent[0]["type"] == "websocket.close" else sent[0].get("status", 200)


async def behind(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": f"{scope['type']}.response.start", "status": 200})


def guard(bound: str = "127.0.0.1", *more: str) -> PageGuard:
    return PageGuard(behind, bound, more)


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    "host", ["127.0.0.1:7860", "localhost:7860", "LOCALHOST", "localhost.:7860", "[::1]:7860", "127.0.0.1", "[::1]"]
)
def test_names_of_this_machine_come_through(kind: str, host: str) -> None:
    assert answer(guard(), kind, host=host) == 200


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:7860", "127.0.0.1.evil.example", "localhost.evil.example", "evil-localhost",
        "evil@127.0.0.1", "127.0.0.1@evil.example", "127.0.0.1, evil.example", "127.0.0.1/evil", "10.0.0.1:7860",
        "[::2]", "0.0.0.0", "2130706433", "", " ", "localhost:", "localhost:x", "[::1", "http://localhost",
    ],
)  # fmt: skip
def test_other_names_do_not(kind: str, host: str) -> None:
    assert answer(guard(), kind, host=host) in (400, 403)
    assert answer(guard(), kind, "GET", host=host) in (400, 403)


def test_a_request_without_a_host_or_with_two_does_not() -> None:
    assert answer(guard()) == 400
    assert answer(guard(), host=["localhost", "evil.example"]) == 400


def test_bound_to_all_addresses_any_address_comes_through_and_no_name() -> None:
    for bound in ("0.0.0.0", "::", "[::]"):
        assert answer(guard(bound), host="192.168.1.5:7860") == answer(guard(bound), host="[fe80::1]:7860") == 200
        assert answer(guard(bound), host="evil.example:7860") == 400
    assert answer(guard("192.168.1.5"), host="192.168.1.5:7860") == 200
    assert answer(guard("192.168.1.5"), host="192.168.1.6:7860") == 400
    assert answer(guard("mine.lan"), host="Mine.lan:7860") == 200


def test_names_that_were_allowed_come_through_with_their_origin() -> None:
    proxied = guard("127.0.0.1", "demo.example.org")
    assert answer(proxied, host="demo.example.org", origin="https://demo.example.org") == 200
    assert answer(proxied, host="127.0.0.1:7860", origin="https://demo.example.org") == 200
    assert answer(proxied, host="evil.example") == 400
    assert answer(proxied, host="demo.example.org", origin="https://evil.example") == 403
    assert answer(guard("127.0.0.1", "*"), host="evil.example", origin="https://other.example") == 200


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example", "null", "http://localhost:3000", "http://127.0.0.1:7860", "http://localhost:7861",
        "http://localhost:7860.evil.example", "file://", "", "http://[bad", "http://localhost:7860@evil.example",
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_requests_of_other_origins_do_not_come_through(kind: str, origin: str) -> None:
    assert answer(guard(), kind, host="localhost:7860", origin=origin) == 403
    assert answer(guard(), kind, "GET", host="localhost:7860", origin=origin) == 403  # server-sent events


def test_the_pages_own_requests_and_those_of_no_browser_come_through() -> None:
    for host in ("localhost:7860", "127.0.0.1:8000", "[::1]:7860"):
        own = answer(guard(), host=host, origin=f"http://{host}", sec_fetch_site="same-origin")
        assert own == answer(guard(), host=host) == 200


def test_what_the_browser_says_of_the_site_counts_where_there_is_no_origin() -> None:
    here = {"host": "localhost:7860"}
    link = {"sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
    for site in ("cross-site", "same-site"):
        assert answer(guard(), **here, sec_fetch_site=site) == 403
        assert answer(guard(), "http", "GET", **here, sec_fetch_site=site, sec_fetch_dest="image") == 403
        assert answer(guard(), "http", "GET", **here, sec_fetch_site=site, sec_fetch_mode="navigate",
                      sec_fetch_dest="iframe") == 403  # fmt: skip
        assert answer(guard(), "http", "GET", **here, sec_fetch_site=site, **link) == 200
        assert answer(guard(), **here, sec_fetch_site=site, **link) == 403  # a form
    assert answer(guard(), "http", "GET", **here, sec_fetch_site="none", **link) == 200


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Yields the page at a free port, for recordings of up to ten seconds."""
    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = str(tmp_path_factory.mktemp("uploads"))
    page = launch(build_page([None], max_duration=10), "127.0.0.1", free_port(), max_size=50)
    yield page
    page.close(verbose=False)
    if before is None:
        del os.environ["GRADIO_TEMP_DIR"]
    else:
        os.environ["GRADIO_TEMP_DIR"] = before


def test_all_of_the_server_is_behind_it(served: Any) -> None:
    evil, foreign = {"Host": f"evil.example:{served.server_port}"}, {"Origin": "https://evil.example"}
    with httpx.Client(base_url=served.local_url, timeout=30) as client:
        upload = {"files": ("a.wav", b"0" * 100)}
        join = {"data": [[], None, DEMO_MODEL.name, "default"], "fn_index": 1, "session_hash": "s"}
        for headers, status in ((evil, 400), (foreign, 403), ({"Sec-Fetch-Site": "cross-site"}, 403)):
            for path in ("", "config", "gradio_api/info", "gradio_api/file=/etc/passwd", "theme.css"):
                assert client.get(path, headers=headers).status_code == status
            assert client.get("gradio_api/queue/data?session_hash=s", headers=headers).status_code == status
            refused = client.post("gradio_api/upload", files=upload, headers=headers)
            assert refused.status_code == status and refused.text.endswith(".") and "Traceback" not in refused.text
            assert client.post("gradio_api/queue/join", json=join, headers=headers).status_code == status
            assert client.post("gradio_api/call/judge", json=join, headers=headers).status_code == status
        assert "--allow-host" in client.get("", headers=evil).text
        own = {"Origin": served.local_url.rstrip("/"), "Sec-Fetch-Site": "same-origin"}
        assert client.post("gradio_api/upload", files=upload, headers=own).status_code == 200
        assert client.get("").status_code == 200


def test_a_space_is_behind_its_proxy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setenv("SPACE_ID", "org/space")
    page = launch(build_page([None]), "127.0.0.1", free_port(), max_size=1)
    try:
        headers = {"Host": "org-space.hf.space", "Origin": "https://huggingface.co"}
        assert httpx.get(page.local_url, headers=headers).status_code == 200
    finally:
        page.close(verbose=False)


# ---------------------------------------------------------------------------------------------------------------------
# Recordings and tracks
# ---------------------------------------------------------------------------------------------------------------------


def test_a_recording_above_the_limit_is_a_sentence_whatever_it_declares(served: Any, tmp_path: Path) -> None:
    long, lying = tmp_path / "long.flac", tmp_path / "lying.flac"
    soundfile.write(long, np.resize(read_audio(BONAFIDE), 16_000 * 11), 16_000)
    content = bytearray(long.read_bytes())
    content[21] &= 0xF0  # sets the number of samples to 0: unknown
    content[22:26] = bytes(4)
    lying.write_bytes(content)
    files = [handle_file(path) for path in (BONAFIDE, long, lying)]
    table, *_ = connect(served.local_url, tmp_path).predict(files, None, DEMO_MODEL.name, api_name="/judge")
    lines = table["value"]["data"]
    assert [line[2] for line in lines] == ["bona fide", "not judged", "not judged"]
    assert all("is longer than the limit of 10 seconds" in line[-1] for line in lines[1:])


def test_the_options_of_the_command_reach_the_server(nes2net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr("nes2net_hf.page.serve", lambda *arguments: calls.append(arguments))
    assert nes2net("demo").code == 0
    assert nes2net("demo", "--max-duration", 60, "--max-size", 5, "--allow-host", "a", "--allow-host", "b").code == 0
    assert calls == [([None], "127.0.0.1", 7860, 200, 3600, []), ([None], "127.0.0.1", 7860, 5, 60, ["a", "b"])]


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Returns a file with two audio tracks: the bona fide sample and the spoofed one."""
    return film_of(tmp_path / "film.mkv", BONAFIDE, SPOOF)


def test_of_several_tracks_one_is_judged_and_the_others_are_told(film: Path, tmp_path: Path) -> None:
    detector = Detector(device="cpu")
    [(path, result)] = judge([str(film)], lambda: choosing(detector, "default", "auto"), lambda *_: None)
    assert path == str(film) and result.track == 0 and result.label == "bonafide"
    [told] = [remark for remark in remarks(result) if "audio tracks" in remark]
    assert told == "2 audio tracks: only track 0 was judged; choose another track or all."
    both = judge([str(film), str(SPOOF)], lambda: choosing(detector, "all", "auto"), lambda *_: None)
    assert [(result.file, result.track, result.label) for _, result in both] == [
        ("film.mkv", 0, "bonafide"),
        ("film.mkv", 1, "spoof"),
        ("spoof.flac", None, "spoof"),
    ]
    assert detector.track is None


def test_each_track_has_its_row_and_is_what_is_played(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    pairs = judge([str(film)], lambda: choosing(Detector(device="cpu"), "all", "auto"), lambda *_: None)
    for (path, result), sample in zip(pairs, (BONAFIDE, SPOOF), strict=True):
        shown = show(path, result)
        assert f"film.mkv (track {result.track})" in shown["html"]
        heard, _ = soundfile.read(shown["audio"]["path"], dtype="float32")
        np.testing.assert_allclose(heard, read_audio(sample), atol=2 / 2**15)
        json.dumps(shown)


def test_the_server_takes_the_choice_of_tracks(served: Any, film: Path, tmp_path: Path) -> None:
    client = connect(served.local_url, tmp_path)
    table, *_ = client.predict([handle_file(film)], None, DEMO_MODEL.name, "all", api_name="/judge")
    assert [line[1:3] for line in table["value"]["data"]] == [
        ["film.mkv (track 0)", "bona fide"],
        ["film.mkv (track 1)", "spoof"],
    ]
