"""`nes2net demo` as users see it: the command, and its page in a headless chromium."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import soundfile

from nes2net_hf.audio import SAMPLING_RATE, read_audio
from nes2net_hf.detection import DEMO_NOTICE

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install 'nes2net_hf[dev]'")

from playwright.sync_api import sync_playwright

from tests.helpers import FIXTURES
from tests.pages import BONAFIDE, SPOOF, free_port, wait_for
from tests.recordings import film_of

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")]

DESK, PHONE = {"width": 1200, "height": 900}, {"width": 390, "height": 844}
NUMBERS = (
    "duration",
    "score",
    "llr",
    "spoof_probability",
    "prior",
    "threshold",
    "spoof_below",
    "bonafide_above",
    "min_window_score",
    "min_window_start",
)
PLAYER = (
    "() => { const {currentTime, paused} = document.querySelector('.verdict + audio'); return [currentTime, paused]; }"
)
SIDES = "element => { const {left, right} = element.getBoundingClientRect(); return [left, right]; }"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yields the address of the command's page. When it ends, it leaves no traceback and no recording."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    command = [sys.executable, "-m", "nes2net_cli", "demo", "--port", str(port)]
    with open(folder / "log", "wb") as log:
        server = subprocess.Popen(command, env=os.environ | {"TMPDIR": str(folder)}, stdout=log, stderr=log)
    try:
        wait_for(f"http://127.0.0.1:{port}/", server)
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(timeout=60)
    said = (folder / "log").read_text(encoding="utf-8")
    assert code == 0 and f"Open http://127.0.0.1:{port}/ in a browser" in said and "Traceback" not in said
    assert [path for path in folder.rglob("*") if path.suffix in (".flac", ".wav", ".csv")] == []


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Yields a browser whose microphone plays the spoofed sample, and which only reaches 127.0.0.1."""
    heard = tmp_path_factory.mktemp("microphone") / "heard.wav"
    soundfile.write(heard, read_audio(SPOOF), SAMPLING_RATE)
    options = ["--no-sandbox", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    options += [
        f"--use-file-for-fake-audio-capture={heard}",
        "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture
def tab(chromium: Any, address: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Yields the opened page in a window of the parametrised size. It must send requests only to its own server."""
    asked: list[str] = []
    failed: list[Any] = []
    tab = chromium.new_page(viewport=getattr(request, "param", DESK))
    tab.set_default_timeout(120_000)
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("websocket", lambda socket: asked.append(socket.url))
    tab.on("pageerror", lambda error: failed.append(error))
    tab.goto(address)
    tab.get_by_text("The verdict appears here.").wait_for()
    yield tab
    tab.close()
    own = urlsplit(address).netloc
    elsewhere = [url for url in asked if not url.startswith(("data:", "blob:")) and urlsplit(url).netloc != own]
    assert asked and (elsewhere, failed) == ([], [])


@pytest.fixture
def letter(tmp_path: Path) -> Path:
    path = tmp_path / "letter.wav"
    path.write_text("Dear Sir or Madam,\n" * 50)
    return path


@pytest.fixture
def spliced(tmp_path: Path) -> Path:
    """Returns bona fide speech with a window of the spoofed sample in the middle; as a whole, it passes."""
    clear = read_audio(FIXTURES / "audio/test-pocketsphinx-cards-0001.flac")  # far above the threshold
    good, bad = np.resize(clear, 3 * 64_600), np.resize(read_audio(SPOOF), 64_600)
    path = tmp_path / "spliced.wav"
    soundfile.write(path, np.concatenate([good, bad, good]), SAMPLING_RATE)
    return path


def drop(tab: Any, *paths: Path) -> str:
    """Uploads files and returns the text of the verdict."""
    tab.locator("input[type=file]").first.set_input_files(paths)
    tab.locator(".verdict h2").wait_for()
    return tab.locator(".verdict").inner_text()


def clear(tab: Any) -> None:
    tab.get_by_label("Clear").first.click()
    tab.get_by_text("The verdict appears here.").wait_for()


def minus(number: float) -> str:
    return f"{number:.2f}".replace("-", "\N{MINUS SIGN}")


@pytest.mark.parametrize("tab", [DESK, PHONE], indirect=True, ids=["desk", "phone"])
def test_the_warning_is_in_sight_before_and_beside_a_verdict(tab: Any) -> None:
    warning = tab.get_by_text(DEMO_NOTICE[1:])
    for _ in range(2):
        box = warning.bounding_box()
        assert warning.is_visible() and box["y"] + box["height"] < tab.viewport_size["height"] / 2  # without scrolling
        assert "no conversations" in tab.locator(".notice").first.inner_text()
        drop(tab, SPOOF)


@pytest.mark.parametrize(
    ("path", "headline", "meaning"),
    [
        (BONAFIDE, "Bona fide", "found no sign of synthetic or converted speech. This does not prove"),
        (SPOOF, "Spoof", "sounds like synthetic or converted speech"),
    ],
    ids=["bonafide", "spoof"],
)
def test_a_recording_gets_the_verdict_of_detect(
    tab: Any, nes2net: Any, path: Path, headline: str, meaning: str
) -> None:
    [row] = nes2net("detect", path).rows
    verdict = drop(tab, path)
    assert tab.locator(".verdict h2").inner_text() == headline and meaning in verdict and path.name in verdict
    far = abs(row["score"] - row["threshold"])
    side = "above" if path == BONAFIDE else "below"
    assert f"{minus(row['score'])} (higher = bona fide), {far:.2f} {side} the threshold of" in verdict
    assert "What to do next" in verdict and "a real calibrated model" in verdict
    assert tab.locator(".timeline button.stretch").count() == (0 if path == BONAFIDE else 1)
    tab.wait_for_function("() => document.querySelector('.verdict + audio').duration > 0")
    assert tab.evaluate("() => document.querySelector('.verdict + audio').duration") == pytest.approx(
        row["duration"], abs=1e-3
    )
    assert not tab.get_by_text("All recordings").is_visible()


def test_a_broken_file_gets_a_sentence_and_the_next_is_judged(tab: Any, letter: Path) -> None:
    said = drop(tab, letter)
    assert said.split("\n\n") == [
        "Not judged",
        "letter.wav is not an audio or video file in a known format, even if its name says so.",
    ]
    assert "Traceback" not in tab.locator("body").inner_text() and tab.locator(".verdict + audio").count() == 0
    clear(tab)
    assert drop(tab, BONAFIDE).startswith("Bona fide")


def test_several_files_make_a_table_and_a_csv_like_that_of_detect(
    tab: Any, nes2net: Any, letter: Path, spliced: Path, tmp_path: Path
) -> None:
    files = (BONAFIDE, SPOOF, letter, spliced)
    drop(tab, *files)
    tab.get_by_text("All recordings").wait_for()
    run = nes2net("detect", *files, "--format", "csv")
    expected = list(csv.DictReader(run.out.splitlines()))
    assert [row["label"] for row in expected] == ["bonafide", "spoof", "", "bonafide"]

    rows = tab.locator("[role=row]:has([role=gridcell])")
    cells = [rows.nth(place).locator("[role=gridcell]").all_inner_texts() for place in range(rows.count())]
    assert [[text.strip() for text in row[:4]] for row in cells] == [
        [
            str(number),
            path.name,
            {"bonafide": "bona fide", "": "not judged"}.get(row["label"], row["label"]),
            f"{round(float(row['score']), 2)}" if row["score"] else "",
        ]
        for number, (path, row) in enumerate(zip(files, expected, strict=True), 1)
    ]
    assert "not an audio or video file" in cells[2][-1] and "1 of 7 windows looks fake" in cells[3][-1]

    with tab.expect_download() as download:
        tab.get_by_text("Download the verdicts as CSV").click()
    assert download.value.suggested_filename == "verdicts.csv"
    download.value.save_as(tmp_path / "verdicts.csv")
    with open(tmp_path / "verdicts.csv", encoding="utf-8-sig", newline="") as file:
        actual = list(csv.DictReader(file))
    for path, row, same in zip(files, expected, actual, strict=True):
        row |= {"file": path.name, "error": row["error"].replace(str(path), path.name)}
        row |= {name: pytest.approx(float(row[name]), abs=1e-5) for name in NUMBERS if row[name]}
        same |= {name: float(same[name]) for name in NUMBERS if same[name]}
        assert same == row


def test_a_row_leads_to_its_verdict_and_a_stretch_plays_to_its_end(tab: Any, spliced: Path) -> None:
    drop(tab, BONAFIDE, spliced)
    tab.get_by_text("spliced.wav", exact=True).last.click()
    tab.locator(".verdict .file", has_text="spliced.wav").wait_for()
    stretch = tab.locator(".stretches button")
    start, end = float(stretch.get_attribute("data-start")), float(stretch.get_attribute("data-end"))
    stretch.click()
    tab.wait_for_timeout(1_000)
    now, paused = tab.evaluate(PLAYER)
    assert start < now < end and not paused
    tab.wait_for_function("() => document.querySelector('.verdict + audio').paused")
    now, _ = tab.evaluate(PLAYER)
    assert end <= now < end + 0.3


def test_what_the_microphone_hears_is_judged(tab: Any) -> None:
    tab.get_by_role("button", name="Record").first.click()
    tab.wait_for_timeout(3_000)
    tab.get_by_role("button", name="Stop").first.click()
    tab.locator(".verdict h2").wait_for()
    assert tab.locator(".verdict h2").inner_text() in ("Bona fide", "Spoof", "No speech found")


def test_a_name_of_code_is_shown_and_not_run(tab: Any, tmp_path: Path) -> None:
    odd = tmp_path / "a {{b}} ${document.title = `run`} '.flac"
    shutil.copy(SPOOF, odd)
    assert "document.title" in drop(tab, odd)
    assert tab.title() == "Nes2Net"


@pytest.mark.parametrize("tab", [PHONE], indirect=True, ids=["phone"])
def test_on_a_phone_the_table_shows_lowest_windows_and_remarks_without_moving(
    tab: Any, spliced: Path, letter: Path
) -> None:
    drop(tab, spliced, SPOOF, letter)
    tab.get_by_text("All recordings").wait_for()
    width = tab.evaluate("() => document.documentElement.scrollWidth")
    assert width == PHONE["width"]
    for part in (".notice >> nth=0", "section.verdict", ".timeline", ".verdict + audio"):
        left, right = tab.locator(part).evaluate(SIDES)
        assert 0 <= left < right <= width, part
    rows = tab.locator("[role=row]:has([role=gridcell])")
    shown = [cell for cell in rows.first.locator("[role=gridcell]").all() if cell.is_visible()]
    file, verdict, lowest, remarks = (cell.inner_text().strip() for cell in shown)
    assert (file, verdict) == ("spliced.wav", "bona fide") and float(lowest) < 0
    assert "1 of 7 windows looks fake" in remarks
    headings = [cell.inner_text().strip() for cell in tab.locator("[role=columnheader]").all() if cell.is_visible()]
    assert headings == ["file", "verdict", "lowest window", "remarks"]
    for cell in shown:
        left, right = cell.evaluate(SIDES)
        assert left >= 0 and right <= width and right - left > 50  # wide enough that words do not break into letters


def test_of_several_tracks_each_can_be_judged(tab: Any, tmp_path: Path) -> None:
    choice = tab.get_by_text("Audio tracks to judge")
    drop(tab, SPOOF)
    assert not choice.is_visible()
    clear(tab)
    text = drop(tab, film_of(tmp_path / "film.mkv", BONAFIDE, SPOOF))
    assert "film.mkv (track 0)" in text and "2 audio tracks: only track 0 was judged" in text
    tab.get_by_label("each track", exact=True).check()
    tab.get_by_text("film.mkv (track 1)").first.click()
    tab.locator(".verdict h2", has_text="Spoof").wait_for()


def test_a_page_of_another_site_reads_and_sends_nothing(chromium: Any, address: str) -> None:
    other = chromium.new_page()
    other.goto("data:text/html,<h1>Another site</h1>")
    refused = """async address => {
        const says = async options => (await fetch(address, options).catch(() => null))?.status ?? "refused";
        return [await says({}), await says({method: "POST", body: new FormData()})];
    }"""
    for path in ("config", "gradio_api/upload", "gradio_api/queue/join"):
        assert other.evaluate(refused, address + path) == ["refused", "refused"]
    assert other.goto(address).status == 200  # it opens at its own address
    other.close()
