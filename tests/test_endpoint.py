"""The inference endpoint answers every request with a verdict or a one-sentence error."""

from __future__ import annotations

import base64
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from nes2net_hf.audio import read_audio
from nes2net_hf.endpoint import EndpointHandler
from nes2net_hf.pretrained.load import DEMO_MODEL

SPOOF = DEMO_MODEL.parents[1] / "samples" / "spoof.flac"
TEXT = base64.b64encode(SPOOF.read_bytes()).decode()


@pytest.fixture(scope="module")
def handler() -> EndpointHandler:
    return EndpointHandler(str(DEMO_MODEL))


@pytest.fixture(scope="module")
def score(handler: EndpointHandler) -> float:
    return handler({"inputs": SPOOF.read_bytes()})["score"]


def as_lists(**fields: Any) -> dict[str, Any]:
    """Returns an array as in a JSON body."""
    return json.loads(json.dumps({"array": read_audio(SPOOF).tolist(), "sampling_rate": 16_000} | fields))


FORMS = {
    "bytes": lambda: SPOOF.read_bytes(),
    "a buffer": lambda: memoryview(SPOOF.read_bytes()),
    "base64": lambda: TEXT,
    "MIME lines": lambda: base64.encodebytes(SPOOF.read_bytes()).decode(),
    "lines with CRLF": lambda: "\r\n".join(TEXT[start : start + 76] for start in range(0, len(TEXT), 76)) + "\r\n",
    "a data URL": lambda: f"data:audio/flac;base64,{TEXT}",
    "a data URL with a parameter": lambda: f"data:audio/ogg;codecs=opus;base64,{TEXT}",
    "an array": lambda: as_lists(),
    "an array of one channel": lambda: as_lists(array=[read_audio(SPOOF).tolist()]),
    "an array under another name": lambda: {"raw": read_audio(SPOOF), "sampling_rate": 16_000},
    "a rate as a float": lambda: as_lists(sampling_rate=16_000.0),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("more", [{}, {"parameters": {}}, {"parameters": None}])
def test_a_recording_may_come_in_many_forms(
    handler: EndpointHandler, score: float, form: str, more: dict[str, Any]
) -> None:
    answer = handler({"inputs": FORMS[form](), **more})
    assert answer["error"] is None and answer["label"] == "spoof"
    assert answer["score"] == pytest.approx(score, abs=1e-4)


SAMPLES = [0.1, -0.1] * 800
BAD: dict[str, tuple[Any, str]] = {
    "nothing": ({}, "`inputs` is missing"),
    "null": ({"inputs": None}, "`inputs` is missing"),
    "another name": ({"input": TEXT}, "`inputs` is missing"),
    "a list of requests": ([{"inputs": TEXT}], "not an object with `inputs`"),
    "bare bytes": (SPOOF.read_bytes(), "not an object with `inputs`"),
    "empty text": ({"inputs": ""}, "`inputs` is empty"),
    "white space": ({"inputs": " \r\n "}, "`inputs` is empty"),
    "empty bytes": ({"inputs": b""}, "`inputs` is empty"),
    "words": ({"inputs": "Dear Sir or Madam"}, "`inputs` is not base64"),
    "umlauts": ({"inputs": "ÄÖÜ="}, "`inputs` is not base64"),
    "an address": ({"inputs": "https://example.org/a.wav"}, "not base64: .*addresses are not downloaded"),
    "a data URL in percents": ({"inputs": "data:audio/wav,%52%49"}, "`inputs` is not base64"),
    "base64 cut short": ({"inputs": TEXT[:-3]}, "`inputs` is not base64"),
    "base64 of a letter": ({"inputs": base64.b64encode(b"Dear Sir, " * 40).decode()}, "not an audio or video file"),
    "a number": ({"inputs": 5}, "`inputs` is 5:"),
    "a huge number": ({"inputs": 10**400}, "`inputs` is a number out of range"),
    "NaN": ({"inputs": float("nan")}, "`inputs` is a number out of range"),
    "true": ({"inputs": True}, "`inputs` is true or false"),
    "a list": ({"inputs": SAMPLES}, "`inputs` is a list: .*one recording per request"),
    "several": ({"inputs": [TEXT, TEXT]}, "`inputs` is a list: .*one recording per request"),
    "an empty object": ({"inputs": {}}, "`sampling_rate` must be a number from 8000 to 192000 Hz, got nothing"),
    "no rate": ({"inputs": {"array": SAMPLES}}, "`sampling_rate` must be .* got nothing"),
    "a rate as text": (
        {"inputs": {"array": SAMPLES, "sampling_rate": "16000"}},
        "`sampling_rate` must be .* got text",
    ),
    "no array": ({"inputs": {"sampling_rate": 16_000}}, "`array` is not a recording"),
    "an empty array": ({"inputs": {"array": [], "sampling_rate": 16_000}}, "`array` is not a recording"),
    "a ragged array": (
        {"inputs": {"array": [[1.0], [0.1, 0.2]], "sampling_rate": 16_000}},
        "`array` is not a recording",
    ),
    "words in an array": ({"inputs": {"array": ["a"] * 800, "sampling_rate": 16_000}}, "`array` is not a recording"),
    "null in an array": ({"inputs": {"array": [None] * 800, "sampling_rate": 16_000}}, "`array` is not a recording"),
    "a cube": ({"inputs": {"array": [[[0.1]]], "sampling_rate": 16_000}}, "`array` is not a recording"),
    "huge integers": ({"inputs": {"array": [10**400] * 800, "sampling_rate": 16_000}}, "`array` is not a recording"),
    "huge floats": ({"inputs": {"array": [1e300] * 800, "sampling_rate": 16_000}}, "NaN or infinite samples"),
    "NaN in an array": ({"inputs": {"array": [float("nan")] * 800, "sampling_rate": 16_000}}, "NaN or infinite"),
    "integers of 16 bits": ({"inputs": {"array": [32767] * 800, "sampling_rate": 16_000}}, "but full scale is 1"),
    "silence": ({"inputs": {"array": [0.0] * 16_000, "sampling_rate": 16_000}}, "is silent"),
    "too short": ({"inputs": {"array": [0.5], "sampling_rate": 16_000}}, "is too short"),
    "channels last": ({"inputs": {"array": [[0.1, 0.2]] * 800, "sampling_rate": 16_000}}, "channels first"),
    "parameters": (
        {"inputs": TEXT, "parameters": {"top_k": 2}},
        "`parameters` has top_k, but no parameters are supported",
    ),
    "parameters as a list": ({"inputs": TEXT, "parameters": [1]}, "`parameters` has a list"),
}
RATES = [0, -1, 16, 1e9, 10**400, float("nan"), float("inf"), True, None, [], {}]
BAD |= {f"a rate of {rate!r:.9}": ({"inputs": {"array": SAMPLES, "sampling_rate": rate}}, "`sampling_rate` must be")
        for rate in RATES}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_judged_is_a_sentence(handler: EndpointHandler, case: str) -> None:
    data, words = BAD[case]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answer = handler(data)
    assert answer["score"] is None and answer["label"] is None and answer.keys() == handler({"inputs": b""}).keys()
    assert answer["error"].endswith(".") and "\n" not in answer["error"] and len(answer["error"]) < 400
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(answer["error"])
    json.dumps(answer, allow_nan=False)


def test_a_recording_may_not_be_longer_than_the_limit_whatever_it_declares(tmp_path: Path) -> None:
    assert "is longer than the limit of 3 seconds" in EndpointHandler(str(DEMO_MODEL), 3)({"inputs": TEXT})["error"]
    soundfile.write(tmp_path / "bomb.flac", np.zeros(3_700 * 8_000, np.int16), 8_000)
    bomb = bytearray((tmp_path / "bomb.flac").read_bytes())
    assert len(bomb) < 100_000
    handler = EndpointHandler(str(DEMO_MODEL))
    assert "is longer than the limit of 60 minutes" in handler({"inputs": bomb})["error"]
    # The last 36 bits of bytes 18 to 25 are the number of samples; 0 means unknown.
    bomb[21] &= 0xF0
    bomb[22:26] = bytes(4)
    assert "is longer than the limit of 60 minutes" in handler({"inputs": bomb})["error"]


def test_a_file_may_not_be_larger_than_the_limit(tmp_path: Path) -> None:
    handler = EndpointHandler(str(DEMO_MODEL), max_size=1)
    soundfile.write(tmp_path / "a.wav", np.zeros(600_000), 16_000)
    large = (tmp_path / "a.wav").read_bytes()
    for inputs in (large, base64.b64encode(large).decode(), {"array": [0.0] * 600_000, "sampling_rate": 16_000}):
        answer = handler({"inputs": inputs})
        assert "MB, more than the limit of 1 MB: cut the recording" in answer["error"]


def test_several_results_are_a_list(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    handler = EndpointHandler(str(DEMO_MODEL))
    monkeypatch.setattr(handler._detector, "channels", "each")
    samples, rate = soundfile.read(SPOOF, dtype="float32")
    soundfile.write(tmp_path / "call.flac", np.stack([samples, samples[::-1]], 1), rate)
    call = (tmp_path / "call.flac").read_bytes()
    answer = handler({"inputs": call})
    assert isinstance(answer, list) and [one["channel"] for one in answer] == [0, 1]
    assert [result.file for result in handler.judge({"inputs": call}, "call.flac")] == ["call.flac"] * 2
    [unread] = handler.judge({"inputs": b"Dear Sir"}, "letter.txt")
    assert unread.file == "letter.txt" and unread.error is not None and unread.error.startswith("letter.txt is not")
