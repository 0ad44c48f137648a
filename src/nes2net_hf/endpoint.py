"""
Judging recordings behind an inference endpoint of Hugging Face: a released folder's `handler.py` imports the class
that such an endpoint looks for, and its `requirements.txt` brings this package.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from .detection import Detector


class EndpointHandler:
    """
    One recording a request, judged whole as `nes2net detect` does.

    Args:
        path: folder of the model.

    Raises:
        ModelError: the model cannot be loaded.
    """

    def __init__(self, path: str = "") -> None:
        self._detector = Detector(path)

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """
        Args:
            data: `inputs`: the bytes of an audio or video file of any format, as an endpoint makes them of a body with
                an audio content type, or their base64 text in a body of JSON.

        Returns:
            What `nes2net detect --format jsonl` writes of a recording: `score`, `label`, `windows`, `warnings` ...,
            and in `error` a sentence where it cannot be judged.

        Raises:
            ValueError: `inputs` are missing, or no bytes and no base64.
        """
        inputs = data.get("inputs")
        if isinstance(inputs, str):
            try:
                inputs = base64.b64decode(inputs, validate=True)
            except binascii.Error:
                raise ValueError("`inputs` is no base64: send the bytes of an audio file, or their base64.") from None
        if not isinstance(inputs, (bytes, bytearray)):
            raise ValueError("`inputs` is missing: send the bytes of an audio file, or their base64.")
        [result] = self._detector.stream(bytes(inputs))
        return result.to_dict()
