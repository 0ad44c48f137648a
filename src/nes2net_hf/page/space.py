"""Write a Hugging Face Space with the page of `nes2net demo` for one model."""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path

from huggingface_hub import SpaceCard, SpaceCardData
from huggingface_hub.utils import validate_repo_id

from ..version import __version__

APP = """\
from nes2net_hf.page import serve

serve([{model_id!r}], host=None, port=None)  # the Space sets host and port
"""
TEXT = """\
# Bona fide or spoofed?

Nes2Net ([arXiv 2504.05657](https://arxiv.org/abs/2504.05657)) judges whether speech is bona fide or spoofed
(synthesised or converted). The model is {model}; its card describes its limits. A score is neither a probability nor a
proof.

Written by `nes2net_hf.page.space.write_space`. To serve the same page on your own machine, run
`nes2net demo --model {model_id}`.
"""


def write_space(folder: str | os.PathLike[str], model_id: str, requirement: str | None = None) -> None:
    """
    Writes `app.py`, `requirements.txt` and `README.md` of a Space to a folder, ready for `hf upload`. Needs the extra
    `demo`, because the Space uses the installed version of gradio.

    Args:
        folder: created if it does not exist; existing files with these names are replaced.
        model_id: Hub id of the model, or a model folder that the Space has, too.
        requirement: pip requirement for this package; this version on PyPI if None. If it is not on PyPI, pass a wheel
            in the folder (`./nes2net_hf-...whl[demo]`) or an address (`nes2net_hf[demo] @ https://...`).

    Raises:
        ValueError: the model's id is neither a folder nor a valid id on the Hub.
    """
    on_hub = None if Path(model_id).is_dir() else [model_id]
    if on_hub:
        validate_repo_id(model_id)
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    (place / "app.py").write_text(APP.format(model_id=model_id), encoding="utf-8")
    (place / "requirements.txt").write_text(
        (requirement or f"nes2net_hf[demo]=={__version__}") + "\n", encoding="utf-8"
    )
    metadata = SpaceCardData(
        title="Bona fide or spoofed?",
        sdk="gradio",
        sdk_version=importlib.metadata.version("gradio"),
        python_version="3.11",
        app_file="app.py",
        license="apache-2.0",
        short_description="Nes2Net judges whether speech is real",
        tags=["anti-spoofing", "deepfake-detection", "nes2net"],
        models=on_hub,
        preload_from_hub=on_hub,  # downloaded when the Space is built, not at the first visit
    )
    model = f"[{model_id}](https://huggingface.co/{model_id})" if on_hub else f"`{model_id}`"
    text = TEXT.format(model=model, model_id=model_id)
    SpaceCard(f"---\n{metadata.to_yaml()}\n---\n\n{text}").save(place / "README.md")
