"""Where a model lies, and why it could not be loaded. Imports neither torch nor transformers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError

from ..errors import ModelError
from ..hub import bounded_requests, hub_reason

DEMO_MODEL = Path(__file__).parents[1] / "models" / "nes2net-demo"
CONFIG_FILE, EXTRACTOR_FILE = "config.json", "preprocessor_config.json"


def check_place(name: str) -> None:
    """Raises ModelError if `name` is neither a model's folder nor a valid Hub id. It does not contact the Hub."""
    if os.path.isdir(name):
        if not os.path.isfile(os.path.join(name, CONFIG_FILE)):
            raise ModelError(f"model folder {name} is not a Nes2Net model: it has no config.json.")
    elif os.path.exists(name):
        raise ModelError(
            f"model {name} is a file: name a folder in the Hugging Face layout, a Hub id, or a checkpoint (.pth)."
        )
    else:
        try:
            validate_repo_id(name)
        except HFValidationError:
            shown = name if name and name.isprintable() else repr(name)
            shown = shown if len(shown) <= 200 else f"{shown[:100]}... (of {len(name):,} characters)"
            raise ModelError(f"model folder {shown} does not exist.") from None


def check_is_nes2net(name: str, config: dict[str, Any]) -> None:
    """Raises ModelError if the content of a config.json is not that of a Nes2Net model."""
    if not config:
        raise ModelError(f"model {name} is not a Nes2Net model: it has no {CONFIG_FILE}.")
    if config.get("model_type") != "nes2net":
        raise ModelError(
            f"model {name} is not a Nes2Net model: its model_type is {config.get('model_type')!r}, not 'nes2net'."
        )


def check_windows(name: str, extractor: Any, config: Any) -> None:
    """Raises ModelError if a model cannot read the windows that its feature extractor makes."""
    whole = extractor.length_policy == "whole"
    for field in ("window_length", "min_samples") if whole else ("window_length",):
        if getattr(extractor, field) < config.min_samples:
            raise ModelError(
                f"model {name}: {EXTRACTOR_FILE}: {field} must be at least {config.min_samples} samples, the length "
                f"of one frame of its encoder, got {getattr(extractor, field)}."
            )
    if config.max_samples is not None and extractor.window_length > config.max_samples:
        raise ModelError(
            f"model {name}: {EXTRACTOR_FILE}: window_length must be at most {config.max_samples} samples, which its "
            f"encoder can read, got {extractor.window_length}."
        )


@contextmanager
def in_a_sentence(name: str, revision: str | None) -> Iterator[None]:
    """Turns errors inside it into a ModelError that names the model, and sets time limits on requests to the Hub."""
    try:
        with nullcontext() if os.path.isdir(name) else bounded_requests():
            yield
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"model {name}{f' at {revision}' if revision else ''} {_reason(error, name)}.") from None


def _reason(error: BaseException, name: str) -> str:
    """Returns the reason behind a chain of exceptions."""
    if not os.path.isdir(name):
        reason = hub_reason(error)
        if reason is None and isinstance(error, SafetensorError):
            reason = (
                f"one of its files in the cache is damaged: clear it with `hf cache rm model/{name}`, then try again"
            )
        if reason is not None:
            return f"could not be loaded: {reason}"
    if str(error).startswith((CONFIG_FILE, EXTRACTOR_FILE)):  # our own message, which is one sentence
        return f"could not be loaded: {str(error).rstrip('.')}"
    if "feature extractor" in str(error) and not os.path.isdir(name):
        return f"could not be loaded: it has no valid {EXTRACTOR_FILE}: add one to the repository"
    first: Any = re.split(r"(?<=\w)[.:]?\s*\n|\.\s", str(error).strip())[0]
    return f"could not be loaded: {first.rstrip('.') or type(error).__name__}"
