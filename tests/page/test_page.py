"""The page of `nes2net demo`: its verdicts, its table, its server, and its Space."""

from __future__ import annotations

import csv
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
import torch
import yaml
from gradio_client import handle_file

from nes2net_hf import Detector, Nes2NetFeatureExtractor, Nes2NetForAudioFrameClassification
from nes2net_hf.audio import SAMPLING_RATE, read_audio
from nes2net_hf.detection import DEMO_NOTICE, Result, WindowScore, detect
from nes2net_hf.detection.words import signed
from nes2net_hf.detection.writers import COLUMNS as CSV_COLUMNS
from nes2net_hf.page.page import (
    COLUMNS,
    LIMITS,
    VERDICT,
    build_page,
    choices,
    choosing,
    describe,
    judge,
    launch,
    row,
    show,
    write_csv,
)
from nes2net_hf.page.space import write_space
from nes2net_hf.page.verdict import VERDICTS, facts, make_playable, remarks, render
from nes2net_hf.pretrained.load import DEMO_MODEL, ModelError
from tests.helpers import lively, tiny_config, tiny_model, uninstall
from tests.pages import BONAFIDE, SPOOF, connect, free_port, wait_for

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'nes2net_hf[demo]'")


PLAY = re.compile(r'<button class="stretch" data-start="([\d.]+)" data-end="([\d.]+)"')


@pytest.fixture(autouse=True)
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    return tmp_path / "uploads"


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(device="cpu")


@pytest.fixture
def broken(tmp_path: Path) -> dict[str, Path]:
    """Returns files that cannot be judged, by a part of the expected message."""
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "empty.wav").write_bytes(b"")
    (folder / "letter.wav").write_text("Dear Sir or Madam,\n" * 50)
    (folder / "cut.flac").write_bytes(SPOOF.read_bytes()[:30_000])
    soundfile.write(folder / "silent.wav", np.zeros(48_000), SAMPLING_RATE)
    (folder / "list.m3u8").write_text("#EXTM3U\n#EXTINF:4,\nhttp://127.0.0.1:9/a.wav\n#EXT-X-ENDLIST\n")
    names = {
        "is empty": "empty.wav",
        "not an audio": "letter.wav",
        "is truncated": "cut.flac",
        "is silent": "silent.wav",
    }
    return {words: folder / name for words, name in (names | {"known format": "list.m3u8"}).items()}


@pytest.fixture
def spliced(tmp_path: Path, detector: Detector) -> Path:
    """Returns three bona fide windows, one spoofed and two bona fide; as a whole they pass as bona fide."""
    good, bad = (np.resize(read_audio(path), detector.window_length) for path in (BONAFIDE, SPOOF))
    path = tmp_path / "spliced.wav"
    soundfile.write(path, np.concatenate([good, good, good, bad, good, good]), SAMPLING_RATE)
    return path


def judged(detector: Detector, *paths: Path) -> list[Result]:
    pairs = judge([str(path) for path in paths], lambda: detector, lambda done, seconds: None)
    assert {path for path, _ in pairs} == {str(path) for path in paths}
    return [result for _, result in pairs]


def test_a_bona_fide_recording_shows_how_far_it_is_from_the_threshold(detector: Detector) -> None:
    [result] = judged(detector, BONAFIDE)
    [expected] = detector.stream(BONAFIDE)
    assert result.score == expected.score and result.file == "bonafide.flac"
    assert result.score is not None and result.threshold is not None
    shown = show(str(BONAFIDE), result)
    assert '<section class="verdict bonafide"' in shown["html"] and "<h2>Bona fide</h2>" in shown["html"]
    assert f"{result.score - result.threshold:.2f} above the threshold of" in facts(result)["Score"]
    assert facts(result)["Lowest window"].startswith(f"{signed(result.min_window_score)} at 0:0")
    assert not PLAY.search(shown["html"]) and "no window looks fake" in shown["html"]


def test_a_spoofed_recording_is_marked_where_its_windows_are_below_the_threshold(detector: Detector) -> None:
    [result] = judged(detector, SPOOF)
    shown = show(str(SPOOF), result)
    assert "<h2>Spoof</h2>" in shown["html"] and " below the threshold of " in facts(result)["Score"]
    [(start, end)] = PLAY.findall(shown["html"])
    assert (float(start), float(end)) == (0, pytest.approx(result.duration, abs=1e-3))


def test_a_probability_is_named_of_a_calibrated_model_only(tiny_model_dir: Path, tmp_path: Path) -> None:
    [result] = detect(BONAFIDE, model=tiny_model_dir, device="cpu")
    assert facts(result)["Probability"].startswith("none")
    tiny_model(calibration={"scale": 0.5, "offset": 0.1, "prior": 0.5}).save_pretrained(tmp_path)
    Nes2NetFeatureExtractor().save_pretrained(tmp_path)
    [result] = detect(BONAFIDE, model=tmp_path, device="cpu")
    assert result.score is not None
    expected = 1 / (1 + np.exp(0.5 * result.score + 0.1))
    assert facts(result)["Probability"].startswith(f"{100 * expected:.1f} % chance of being fake, if half of such")


def test_what_is_played_is_what_the_model_heard(detector: Detector, tmp_path: Path) -> None:
    stereo = tmp_path / "stereo.flac"
    soundfile.write(stereo, np.stack([read_audio(one)[:70_000] for one in (BONAFIDE, SPOOF)], axis=1), 16_000)
    low, high, step = make_playable(stereo, tmp_path / "heard.wav")
    heard, rate = soundfile.read(tmp_path / "heard.wav", dtype="float32")
    assert rate == SAMPLING_RATE
    np.testing.assert_allclose(heard, read_audio(stereo), atol=1 / 2**15)
    assert len(low) == len(high) and len(low) * step == pytest.approx(len(heard) / rate, abs=2 * step)
    assert (low <= high).all() and high.max() == pytest.approx(heard.max(), abs=1e-4)


def test_each_channel_is_played_by_itself(detector: Detector, tmp_path: Path) -> None:
    call = tmp_path / "call.flac"
    left, right = read_audio(BONAFIDE)[:64_000], read_audio(SPOOF)[:64_000]
    soundfile.write(call, np.stack([left, right], axis=1), SAMPLING_RATE)
    results = judged(detector, call)
    assert [row(number, result)[1:3] for number, result in enumerate(results, 1)] == [
        ["call.flac (channel 0)", "bona fide"],
        ["call.flac (channel 1)", "spoof"],
    ]
    for result, spoken in zip(results, (left, right), strict=True):
        heard, _ = soundfile.read(show(str(call), result)["audio"]["path"], dtype="float32")
        np.testing.assert_allclose(heard, spoken, atol=1 / 2**14)
    [mix] = choosing(detector, "default", "mix").stream(call)
    assert mix.channel is None
    for offered in (results, [mix]):
        tracks, channels = choices([("call.flac", result) for result in offered])
        assert channels["visible"] and "visible" not in tracks


@pytest.mark.parametrize("name", ["tone", "short"])
def test_without_a_verdict_the_page_says_why_and_what_to_do(detector: Detector, tmp_path: Path, name: str) -> None:
    tone = 0.3 * np.sin(np.arange(80_000) / 4)
    path = tmp_path / "a.wav"
    soundfile.write(path, tone if name == "tone" else read_audio(SPOOF)[8_000:16_000], SAMPLING_RATE)
    [result] = judged(detector, path)
    html = show(str(path), result)["html"]
    headline = {"tone": "No speech found", "short": "Too short to judge"}[name]
    assert f"<h2>{headline}</h2>" in html and "What to do next" in html and '"verdict undecided"' in html
    assert not PLAY.search(html) and "because there is no verdict" in html


def test_no_text_of_the_page_names_an_option_of_the_command_line(detector: Detector) -> None:
    assert "--" not in "".join(text for texts in VERDICTS.values() for text in texts)
    assert "--" not in describe(None).replace("---", "")


def test_a_splice_that_passes_in_all_is_marked_and_pointed_out(detector: Detector, spliced: Path) -> None:
    [result] = judged(detector, spliced)
    assert result.label == "bonafide"
    [stretch] = result.suspicious()
    window = detector.window_length / SAMPLING_RATE
    assert (stretch.start, stretch.end) == pytest.approx((3 * window, 4 * window))
    assert any("1 of 6 windows looks fake" in remark for remark in remarks(result))
    assert "1 of 6 look fake" in facts(result)["Windows"]
    html = show(str(spliced), result)["html"]
    assert PLAY.findall(html) == [(f"{stretch.start:.3f}", f"{stretch.end:.3f}")]
    assert html.count(f'data-start="{stretch.start:.3f}"') == 3  # in the picture, in the list, as the lowest window


def test_stretches_end_where_a_window_passes_or_holds_no_sound() -> None:
    scores = [-1.0, -3.0, None, -2.0, 1.0, -1.0]
    windows = [
        WindowScore(4.0 * index, 4.0 * index + 4, score, (score or 0) < 0) for index, score in enumerate(scores)
    ]
    result = Result("a", label="spoof", threshold=0.0, windows=windows)
    assert [(part.start, part.end, part.score) for part in result.suspicious()] == [
        (0, 8, -2),
        (12, 16, -2),
        (20, 24, -1),
    ]


def test_a_model_of_frames_marks_its_own_stretches(tmp_path: Path) -> None:
    torch.manual_seed(0)
    lively(Nes2NetForAudioFrameClassification(tiny_config())).save_pretrained(tmp_path)
    Nes2NetFeatureExtractor().save_pretrained(tmp_path)
    path = tmp_path / "window.wav"
    soundfile.write(path, read_audio(BONAFIDE)[:64_000], SAMPLING_RATE)
    [result] = detect(path, model=tmp_path, device="cpu")
    assert result.score is not None  # the lowest frame's score
    [result] = detect(path, model=tmp_path, device="cpu", threshold=result.score + 0.01)
    assert result.spoofed and result.spoofed[0].end - result.spoofed[0].start < 1
    marked = [(float(start), float(end)) for start, end in PLAY.findall(show(str(path), result)["html"])]
    assert marked == [(round(part.start, 3), round(part.end, 3)) for part in result.spoofed]


def test_a_model_without_threshold_says_that_log_odds_decide(detector: Detector) -> None:
    [result] = judged(detector, SPOOF)
    result.threshold = None
    assert "the log-odds decide" in facts(result)["Score"] and row(1, result)[4] is None


def test_broken_files_are_a_sentence_with_their_own_name(detector: Detector, broken: dict[str, Path]) -> None:
    results = judged(detector, *broken.values())
    for (words, path), result in zip(broken.items(), results, strict=True):
        shown = show(str(path), result)
        assert '<section class="verdict error"' in shown["html"] and shown["audio"] is None
        assert words in shown["html"] and path.name in shown["html"]
        assert str(path.parent) not in shown["html"] and "Traceback" not in shown["html"]
        assert row(1, result)[1:3] == [path.name, "not judged"]


def test_warnings_of_the_detector_are_shown(detector: Detector, tmp_path: Path) -> None:
    path = tmp_path / "short.wav"
    soundfile.write(path, read_audio(SPOOF)[8_000:16_000], SAMPLING_RATE)
    [result] = judged(detector, path)
    assert result.warnings and "Unreliable: only 0.5 s of sound." in show(str(path), result)["html"]
    assert row(1, result)[2] == "too short to judge" and "only 0.5 s" in str(row(1, result)[-1])


def test_an_upload_that_was_deleted_is_a_sentence(detector: Detector) -> None:
    [result] = judged(detector, BONAFIDE)
    assert "upload it again" in show("gone/bonafide.flac", result)["html"]


def test_names_of_files_cannot_become_part_of_the_page() -> None:
    html = render(Result('<img src=x onerror="alert(1)">.wav', error="It is <b>broken</b>."))
    assert "<img" not in html and "<b>" not in html
    assert "{{" not in VERDICT  # Handlebars would run a file name with `${...}`


def test_nothing_uploaded_loads_no_model() -> None:
    def load() -> Detector:
        raise AssertionError("loaded")

    assert judge([], load, lambda done, seconds: None) == []


def test_progress_tells_recordings_and_seconds(detector: Detector, spliced: Path) -> None:
    told: list[tuple[int, float]] = []
    judge([str(BONAFIDE), str(spliced)], lambda: detector, lambda done, seconds: told.append((done, seconds)))
    assert told and [seconds for _, seconds in told] == sorted(seconds for _, seconds in told)
    assert told[-1][1] == pytest.approx((2 + 6) * detector.window_length / SAMPLING_RATE)


def test_the_table_has_a_row_a_recording_and_the_csv_the_columns_of_detect(
    detector: Detector, broken: dict[str, Path]
) -> None:
    results = judged(detector, BONAFIDE, SPOOF, broken["is empty"])
    rows = [row(number, result) for number, result in enumerate(results, 1)]
    assert {len(line) for line in rows} == {len(COLUMNS)}
    assert [line[2] for line in rows] == ["bona fide", "spoof", "not judged"]
    assert rows[0][4] > 0 > rows[1][4]  # type: ignore[operator]
    path = write_csv(results)
    assert Path(path).read_bytes().startswith(b"\xef\xbb\xbf")
    with open(path, encoding="utf-8-sig", newline="") as file:
        lines = list(csv.DictReader(file))
    assert Path(path).name == "verdicts.csv" and tuple(lines[0]) == CSV_COLUMNS
    assert [line["file"] for line in lines] == ["bonafide.flac", "spoof.flac", "empty.wav"]
    assert [float(line["score"]) for line in lines[:2]] == pytest.approx(
        [result.score for result in results[:2]], abs=1e-6
    )


def test_the_notice_and_the_limits_of_a_card_are_in_sight(tmp_path: Path) -> None:
    for model in (None, str(DEMO_MODEL), f"org/{DEMO_MODEL.name}"):
        assert DEMO_NOTICE[1:] in describe(model)
    assert "no conversations" in describe(None) and "## " not in describe(None)
    assert describe("org/model") == LIMITS
    (tmp_path / "README.md").write_text("# A model\n\n## Limits\n\n- Only songs.\n\n## Citation\n\nnone\n")
    assert "- Only songs." in describe(str(tmp_path)) and "Citation" not in describe(str(tmp_path))


@pytest.fixture
def only_here(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Returns a list of this process's connections to other hosts, which are refused."""
    elsewhere: list[Any] = []
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1"):
            elsewhere.append(address)
            raise ConnectionRefusedError(address)
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    lookup = socket.getaddrinfo

    def looked_up(host: Any, *rest: Any, **options: Any) -> Any:
        if host not in (None, "localhost", "127.0.0.1", b"127.0.0.1", "::1"):
            elsewhere.append(host)
            raise socket.gaierror(f"no look-up of {host}")
        return lookup(host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    return elsewhere


@pytest.fixture
def served(uploads: Path, tmp_path: Path) -> Iterator[Any]:
    """Yields the page with the bundled model and a folder without a model, at a free port, for files up to 1 MB."""
    (tmp_path / "nothing").mkdir()
    page = launch(build_page([None, str(tmp_path / "nothing")]), "127.0.0.1", free_port(), max_size=1)
    yield page
    page.close(verbose=False)


def test_the_server_judges_plays_and_gives_the_csv_and_calls_nobody(
    only_here: list[Any], served: Any, broken: dict[str, Path], tmp_path: Path
) -> None:
    client = connect(served.local_url, tmp_path)
    files = [handle_file(path) for path in (BONAFIDE, SPOOF, *broken.values())]
    table, verdicts, verdict = client.predict(files, None, DEMO_MODEL.name, api_name="/judge")
    lines = table["value"]["data"]
    assert [line[1] for line in lines] == ["bonafide.flac", "spoof.flac", *(path.name for path in broken.values())]
    assert [line[2] for line in lines] == ["bona fide", "spoof", *["not judged"] * len(broken)]
    with open(verdicts["value"], encoding="utf-8-sig", newline="") as file:
        assert [line["label"] for line in csv.DictReader(file)][:2] == ["bonafide", "spoof"]
    assert "<h2>Bona fide</h2>" in verdict["html"]
    heard = next((tmp_path / "downloads").rglob("heard.wav"))
    assert soundfile.info(heard).duration == pytest.approx(soundfile.info(BONAFIDE).duration)
    assert only_here == []
    assert served.server_name == "127.0.0.1" and not served.share and not served.analytics_enabled


def test_a_recording_is_judged_like_a_file_and_nothing_left_clears_the_page(served: Any, tmp_path: Path) -> None:
    client = connect(served.local_url, tmp_path)
    table, _, verdict = client.predict([], handle_file(SPOOF), DEMO_MODEL.name, api_name="/judge")
    assert "<h2>Spoof</h2>" in verdict["html"] and table["visible"] is False
    _, download, verdict = client.predict([], None, DEMO_MODEL.name, api_name="/judge")
    assert verdict is None and download["visible"] is False


def test_a_model_that_cannot_be_loaded_is_a_sentence_on_the_page(served: Any, tmp_path: Path) -> None:
    client = connect(served.local_url, tmp_path)
    model = str(tmp_path / "nothing")
    table, _, verdict = client.predict([handle_file(SPOOF)], None, model, api_name="/judge")
    assert "Not judged" in verdict["html"] and "no config.json" in verdict["html"] and table["visible"] is False
    with pytest.raises(ModelError, match=r"no config\.json"):
        Detector(model)


def test_uploads_above_the_limit_are_refused(served: Any) -> None:
    address = f"{served.local_url}gradio_api/upload"
    small, large = (
        httpx.post(address, files={"files": ("a.wav", b"0" * size)}, timeout=30) for size in (900_000, 1_100_000)
    )
    assert small.status_code == 200
    assert large.status_code == 413


def test_only_uploads_are_served(served: Any) -> None:
    for path in ("/etc/passwd", BONAFIDE, DEMO_MODEL / "config.json"):
        assert httpx.get(f"{served.local_url}gradio_api/file={path}").status_code == 403


def test_without_gradio_the_command_names_what_to_install(nes2net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    uninstall(monkeypatch, "gradio", "nes2net_hf.page")
    run = nes2net("demo")
    assert run.code == 2 and run.err == "Error: gradio is not installed: pip install 'nes2net_hf[demo]'.\n"


def test_a_port_that_is_taken_is_a_sentence(nes2net: Any) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        run = nes2net("demo", "--port", other.getsockname()[1])
    signal.signal(signal.SIGTERM, before)
    assert run.code == 2 and run.err.startswith("Error: the page cannot be served at 127.0.0.1:")


def test_a_space_names_its_gradio_and_its_model(tmp_path: Path) -> None:
    import gradio

    write_space(tmp_path / "space", "org/model")
    card = (tmp_path / "space" / "README.md").read_text(encoding="utf-8")
    metadata = yaml.safe_load(card.split("---")[1])
    assert (metadata["sdk"], metadata["sdk_version"]) == ("gradio", gradio.__version__)
    assert metadata["app_file"] == "app.py" and metadata["models"] == metadata["preload_from_hub"] == ["org/model"]
    assert len(metadata["short_description"]) <= 60
    assert (tmp_path / "space" / "requirements.txt").read_text().startswith("nes2net_hf[demo]==")
    write_space(tmp_path / "space", "org/model", requirement="./nes2net_hf-1.0-py3-none-any.whl[demo]")
    assert (tmp_path / "space" / "requirements.txt").read_text() == "./nes2net_hf-1.0-py3-none-any.whl[demo]\n"
    with pytest.raises(ValueError, match="org//model"):
        write_space(tmp_path / "none", "org//model")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot be asked to end there")
def test_the_app_of_a_space_runs_and_leaves_nothing_behind(tmp_path: Path) -> None:
    write_space(tmp_path / "space", str(DEMO_MODEL))
    (tmp_path / "temporary").mkdir()
    port = free_port()
    variables = {"GRADIO_SERVER_PORT": str(port), "GRADIO_SERVER_NAME": "127.0.0.1"}
    variables |= {"TMPDIR": str(tmp_path / "temporary")}
    app = subprocess.Popen([sys.executable, "app.py"], cwd=tmp_path / "space", env=os.environ | variables)
    try:
        wait_for(f"http://127.0.0.1:{port}/", app)
        client = connect(f"http://127.0.0.1:{port}/", tmp_path)
        *_, verdict = client.predict([handle_file(SPOOF)], None, str(DEMO_MODEL), api_name="/judge")
        assert "<h2>Spoof</h2>" in verdict["html"]
        assert list((tmp_path / "temporary").rglob("spoof.flac"))
    finally:
        app.send_signal(signal.SIGTERM)
        assert app.wait(timeout=60) == 0
    assert not list((tmp_path / "temporary").rglob("*.flac")) and not list((tmp_path / "temporary").rglob("*.wav"))
