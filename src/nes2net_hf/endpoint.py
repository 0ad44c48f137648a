"""
Judging recordings that come as requests. A released folder's `handler.py` imports the class that an inference endpoint
of Hugging Face looks for, and its `requirements.txt` brings this package; `nes2net serve` puts the same class behind a
server of one's own.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from .audio import AudioError
from .audio.decoders import MAX_RATE, MIN_RATE
from .detection import Detector, Result
from .errors import DetectionError

MAX_SECONDS = 3600.0
MAX_MEGABYTES = 200
_FORMS = "send the bytes of an audio file, their base64, or an object with `array` and `sampling_rate`"


class EndpointHandler:
    """
    One recording a request, judged whole as `nes2net detect` does.

    Args:
        path: folder or Hub id of the model; the bundled demonstration model if None.
        max_duration: seconds that a recording may have, counted as it is decoded, whatever its header declares.
        max_size: megabytes that its file may have.

    Raises:
        ModelError: the model cannot be loaded.
    """

    def __init__(
        self, path: str | None = "", max_duration: float = MAX_SECONDS, max_size: int = MAX_MEGABYTES
    ) -> None:
        self._detector = Detector(path, max_duration=max_duration)
        self._max_bytes = max_size * 1_000_000

    @property
    def model_name(self) -> str:
        """Of the model that judges, as results have it."""
        return self._detector.model_name

    def __call__(self, data: Any) -> dict[str, Any] | list[dict[str, Any]]:
        """
        Args:
            data: a dict whose `inputs` are the bytes of an audio or video file, as an endpoint makes
                them of a body with an audio content type; or, of a body of JSON, their base64 text (in lines or not,
                also as a `data:` URL), or an object with `array`, samples in [-1, 1] as (S,) or (C, S), and
                `sampling_rate` in Hz. There are no `parameters`.

        Returns:
            What `nes2net detect --format jsonl` writes of a recording: `score`, `label`, `windows`, `warnings` ...,
            and in `error` a sentence where it cannot be judged, whatever was sent. A list of such objects where the
            recording has several results, such as one of each channel.
        """
        try:
            results = self.judge(data)
        except (AudioError, DetectionError) as error:
            results = [Result("<inputs>", model=self.model_name, error=str(error))]
        answers = [result.to_dict() for result in results]
        return answers[0] if len(answers) == 1 else answers

    def judge(
        self, data: Any, name: str | None = None, progress: Callable[[float], None] | None = None
    ) -> list[Result]:
        """
        Args:
            data: as `__call__` takes it.
            name: of the file, for results and their errors.
            progress: as [`Detector.stream`] takes it; what it raises ends the judging.

        Returns:
            At least one result; `error` says of each why it could not be judged.

        Raises:
            AudioError: the request holds no recording, or a file that is too large.
            DetectionError: the model ran out of memory.
        """
        source = self._recording(data)
        if name is None or not isinstance(source, bytes):
            return list(self._detector.stream([source], progress))
        named = _NamedBytes(source)
        named.name = name
        return [replace(result, file=name) for result in self._detector.stream([named], progress)]

    def _recording(self, data: Any) -> Any:
        """What was sent as a source for the detector; raises AudioError."""
        if not isinstance(data, Mapping):
            raise AudioError(f"the request is no object with `inputs`: {_FORMS}.")
        parameters = data.get("parameters")
        if parameters:
            names = ", ".join(map(str, parameters)) if isinstance(parameters, Mapping) else _kind(parameters)
            raise AudioError(f"`parameters` has {names[:200]}, and there are none: remove it.")
        inputs = data.get("inputs")
        if inputs is None:
            raise AudioError(f"`inputs` is missing: {_FORMS}.")
        if isinstance(inputs, Mapping):
            return self._array(inputs)
        if isinstance(inputs, str):
            inputs = self._decoded(inputs)
        if not isinstance(inputs, (bytes, bytearray, memoryview)):
            raise AudioError(f"`inputs` is {_kind(inputs)}: {_FORMS}, one recording a request.")
        if not inputs:
            raise AudioError(f"`inputs` is empty: {_FORMS}.")
        self._check_size(len(inputs))
        return bytes(inputs)

    def _decoded(self, text: str) -> bytes:
        """Base64 → bytes."""
        self._check_size(len(text) * 3 // 4)
        if prefix := re.match(r"\s*data:[^,]*;base64,", text):
            text = text[prefix.end() :]
        try:
            return base64.b64decode("".join(text.split()), validate=True)
        except (binascii.Error, ValueError):
            raise AudioError(f"`inputs` is no base64: {_FORMS}; an address is not fetched.") from None

    def _array(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """An array as a JSON body has it, in the precision that is judged."""
        rate, samples = inputs.get("sampling_rate"), inputs.get("array", inputs.get("raw"))
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not MIN_RATE <= rate <= MAX_RATE:
            raise AudioError(f"`sampling_rate` must be a number from {MIN_RATE} to {MAX_RATE} Hz, got {_kind(rate)}.")
        try:
            array = np.asarray(samples)
            if array.dtype.kind not in "fiu" or array.ndim not in (1, 2) or not array.size:
                raise ValueError
            if not isinstance(samples, np.ndarray):  # numbers of JSON
                with np.errstate(over="ignore"):  # infinite samples have a sentence of their own
                    array = array.astype(np.float32)
        except (ValueError, TypeError, OverflowError):
            raise AudioError(
                "`array` is no recording: send its samples as numbers in [-1, 1], in one list, or in a list of each "
                "channel."
            ) from None
        self._check_size(array.nbytes)
        return {"array": array, "sampling_rate": round(rate)}

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise AudioError(
                f"`inputs` has {size / 1e6:.3g} MB, more than the {self._max_bytes / 1e6:.3g} that are allowed here: "
                "cut the recording, or send it in a compressed format."
            )


class _NamedBytes(io.BytesIO):
    name: str


def _kind(value: Any) -> str:
    """A value of JSON in a word or two."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value:.6g}" if abs(value) < 1e15 else "a number without bounds"
    names = {type(None): "nothing", bool: "true or false", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)
