"""
Judge recordings from requests. Inference endpoints of Hugging Face find this class through the `handler.py` of a
released folder, and install this package through its `requirements.txt`. `nes2net serve` uses the same class.
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
    Judges one whole recording per request, like `nes2net detect`.

    Args:
        path: folder or Hub id of the model; the bundled demonstration model if None.
        max_duration: maximum length of a recording in seconds, measured while decoding, not by its header.
        max_size: maximum size of its file in megabytes.

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
        """Name of the model, as in results."""
        return self._detector.model_name

    def __call__(self, data: Any) -> dict[str, Any] | list[dict[str, Any]]:
        """
        Judges a request.

        Args:
            data: a dict with `inputs`. An endpoint passes the bytes of an audio or video file if the content type is
                audio. In JSON, `inputs` is the base64 text of these bytes (with or without line breaks, or a `data:`
                URL), or an object with `array`, samples in [-1, 1] as (S,) or (C, S), and `sampling_rate` in Hz.
                `parameters` are not supported.

        Returns:
            The result as `nes2net detect --format jsonl` writes it: `score`, `label`, `windows`, `warnings` ..., and a
            sentence in `error` if the request cannot be judged. A list of results if there are several, e.g. one for
            each channel.
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
        Judges a request.

        Args:
            data: as in `__call__`.
            name: name of the file, for results and errors.
            progress: as in [`Detector.stream`]; an exception that it raises ends the judging.

        Returns:
            At least one result. Its `error` says why it could not be judged.

        Raises:
            AudioError: the request has no recording, or its file is too large.
            DetectionError: the model ran out of memory.
        """
        source = self._recording(data)
        if name is None or not isinstance(source, bytes):
            return list(self._detector.stream([source], progress))
        named = _NamedBytes(source)
        named.name = name
        return [replace(result, file=name) for result in self._detector.stream([named], progress)]

    def _recording(self, data: Any) -> Any:
        """Returns the request's recording as a source for the detector. Raises AudioError."""
        if not isinstance(data, Mapping):
            raise AudioError(f"the request is not an object with `inputs`: {_FORMS}.")
        parameters = data.get("parameters")
        if parameters:
            names = ", ".join(map(str, parameters)) if isinstance(parameters, Mapping) else _kind(parameters)
            raise AudioError(f"`parameters` has {names[:200]}, but no parameters are supported: remove it.")
        inputs = data.get("inputs")
        if inputs is None:
            raise AudioError(f"`inputs` is missing: {_FORMS}.")
        if isinstance(inputs, Mapping):
            return self._array(inputs)
        if isinstance(inputs, str):
            inputs = self._decoded(inputs)
        if not isinstance(inputs, (bytes, bytearray, memoryview)):
            raise AudioError(f"`inputs` is {_kind(inputs)}: {_FORMS}, with one recording per request.")
        if not inputs:
            raise AudioError(f"`inputs` is empty: {_FORMS}.")
        self._check_size(len(inputs))
        return bytes(inputs)

    def _decoded(self, text: str) -> bytes:
        """Decodes base64."""
        self._check_size(len(text) * 3 // 4)
        if prefix := re.match(r"\s*data:[^,]*;base64,", text):
            text = text[prefix.end() :]
        try:
            return base64.b64decode("".join(text.split()), validate=True)
        except (binascii.Error, ValueError):
            raise AudioError(f"`inputs` is not base64: {_FORMS}; addresses are not downloaded.") from None

    def _array(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the array of a JSON body in the precision of the model."""
        rate, samples = inputs.get("sampling_rate"), inputs.get("array", inputs.get("raw"))
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not MIN_RATE <= rate <= MAX_RATE:
            raise AudioError(f"`sampling_rate` must be a number from {MIN_RATE} to {MAX_RATE} Hz, got {_kind(rate)}.")
        try:
            array = np.asarray(samples)
            if array.dtype.kind not in "fiu" or array.ndim not in (1, 2) or not array.size:
                raise ValueError
            if not isinstance(samples, np.ndarray):  # numbers from JSON
                with np.errstate(over="ignore"):  # infinite samples are refused later
                    array = array.astype(np.float32)
        except (ValueError, TypeError, OverflowError):
            raise AudioError(
                "`array` is not a recording: send its samples as numbers in [-1, 1], in one list, or in one list per "
                "channel."
            ) from None
        self._check_size(array.nbytes)
        return {"array": array, "sampling_rate": round(rate)}

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise AudioError(
                f"`inputs` has {size / 1e6:.3g} MB, more than the limit of {self._max_bytes / 1e6:.3g} MB: cut the "
                "recording, or use a compressed audio format."
            )


class _NamedBytes(io.BytesIO):
    name: str


def _kind(value: Any) -> str:
    """Returns a short description of a JSON value."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value:.6g}" if abs(value) < 1e15 else "a number out of range"
    names = {type(None): "nothing", bool: "true or false", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)
