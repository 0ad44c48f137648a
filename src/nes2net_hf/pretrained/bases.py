"""
Records what a model was trained from, and checks under which licences it may be released.

A run writes `base.json` into each model's folder, so that the facts remain when the base model has moved. The law has
not settled whether trained weights are a derivative work of the weights they started from. Here they count as one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, hf_hub_download, try_to_load_from_cache

from ..errors import ReleaseError
from ..hub import bounded_requests
from .cache import find
from .load import DEMO_MODEL

BASE = "base.json"
README = "README.md"

_PERMISSIVE = {
    "Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "ISC", "CC0-1.0", "Unlicense", "CC-BY-3.0", "CC-BY-4.0",
}  # fmt: skip
_GPL_3 = ("GPL-3.0-only", "GPL-3.0-or-later")
# Licence of the base → the licences that weights trained from it may have, unless any licence is allowed.
COMPATIBLE: dict[str, tuple[str, ...]] = {
    "GPL-2.0-only": ("GPL-2.0-only",),
    "GPL-2.0-or-later": ("GPL-2.0-only", "GPL-2.0-or-later", *_GPL_3),
    "GPL-3.0-only": ("GPL-3.0-only",),
    "GPL-3.0-or-later": _GPL_3,
    "LGPL-3.0-only": ("LGPL-3.0-only", "GPL-3.0-only"),
    "LGPL-3.0-or-later": ("LGPL-3.0-only", "LGPL-3.0-or-later", *_GPL_3),
    "AGPL-3.0-only": ("AGPL-3.0-only",),
    "AGPL-3.0-or-later": ("AGPL-3.0-only", "AGPL-3.0-or-later"),
    "MPL-2.0": ("MPL-2.0", "GPL-2.0-or-later", *_GPL_3, "LGPL-3.0-or-later", "AGPL-3.0-or-later"),
    "CC-BY-SA-3.0": ("CC-BY-SA-3.0", "CC-BY-SA-4.0", "GPL-3.0-only"),  # GPL-3.0 via CC-BY-SA-4.0
    "CC-BY-SA-4.0": ("CC-BY-SA-4.0", "GPL-3.0-only"),
    "CC-BY-NC-3.0": ("CC-BY-NC-3.0", "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0"),
    "CC-BY-NC-4.0": ("CC-BY-NC-4.0", "CC-BY-NC-SA-4.0"),
    "CC-BY-NC-SA-3.0": ("CC-BY-NC-SA-3.0", "CC-BY-NC-SA-4.0"),
    "CC-BY-NC-SA-4.0": ("CC-BY-NC-SA-4.0",),
    "CC-BY-ND-4.0": (),
    "CC-BY-NC-ND-4.0": (),
}
# Licences of published encoders that restrict what is trained from them, for where their cards cannot be read.
_ENCODERS = {
    "facebook/mms-300m": "CC-BY-NC-4.0",
    "facebook/mms-1b": "CC-BY-NC-4.0",
    "utter-project/mHuBERT-147": "CC-BY-NC-SA-4.0",
}
_ANTI_DEEPFAKE = re.compile(r"nii-yamagishilab/.+-anti-deepfake(-nda)?")
# The Hub's names without "only" or "or later" are read as "only", the narrower one.
_SPELLINGS = {name.lower(): name for name in (*_PERMISSIVE, *COMPATIBLE)} | {
    f"{name}-{version}": f"{name.upper()}-{version}-only"
    for name, version in (("gpl", "2.0"), ("gpl", "3.0"), ("lgpl", "3.0"), ("agpl", "3.0"))
}


@dataclass(frozen=True)
class Base:
    """A model that training started from."""

    name: str
    """Hub id, or the last part of its folder's path."""
    license: str | None
    """SPDX id if it has one; None if its card does not say."""
    demonstration: bool = False
    """By its configuration, or by its name if the configuration is not on this machine."""
    limits: tuple[str, ...] = ()
    """The limits that its card lists."""
    bases: tuple[Base, ...] = field(default=())
    """The model that it was trained from, if any."""

    def chain(self) -> Iterator[Base]:
        """Yields this model, then the model that it was trained from, and so on."""
        yield self
        for base in self.bases:
            yield from base.chain()


def describe_base(name: str, revision: str | None = None, fetch: bool = False) -> Base:
    """
    Returns what is known about a model that training starts from, and about the models that it was trained from.

    Args:
        name: Hub id or folder.
        fetch: whether to download its card from the Hub, instead of only looking in the cache.

    Raises:
        ReleaseError: its `base.json` is damaged.
    """
    bases = tuple(filter(None, [read_base(_file(*find(name, revision), BASE, fetch))]))
    return replace(describe_model(name, revision, fetch), bases=bases)


def describe_model(name: str, revision: str | None = None, fetch: bool = False) -> Base:
    """Returns what the card and the configuration of a model say. Arguments as in `describe_base`."""
    place = find(name, revision)
    card, config = (_file(*place, file, fetch) for file in (README, "config.json"))
    license, limits = _card(card)
    if license is None:
        license = "CC-BY-NC-SA-4.0" if _ANTI_DEEPFAKE.fullmatch(name) else _ENCODERS.get(name)
    is_demo = (
        Path(name).name == DEMO_MODEL.name if config is None else (_json(config) or {}).get("demonstration") is True
    )
    return Base(
        name=Path(name).resolve().name if Path(name).is_dir() else name,
        license=license,
        demonstration=is_demo,
        limits=limits,
    )


def write_base(base: Base, folder: Path) -> None:
    (folder / BASE).write_text(json.dumps(asdict(base), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_base(path: Path | None) -> Base | None:
    """
    Reads what `write_base` wrote; returns None if there is no file.

    Raises:
        ReleaseError: the file is damaged.
    """
    if path is None or not path.is_file():
        return None
    try:
        return _from_json(json.loads(path.read_text(encoding="utf-8")))
    except (KeyError, TypeError, AttributeError, ValueError):
        raise ReleaseError(f"{path} is damaged: copy it again from the run.") from None


def folder_license(folder: Path) -> str | None:
    """Returns the licence in the card of a model's folder, or None."""
    return _card(folder / README)[0]


def check_license(license: str, bases: list[Base]) -> None:
    """
    Checks that weights trained from `bases` may be released under `license`.

    Raises:
        ReleaseError: they may not. The message says which licences are possible.
    """
    wanted = spdx(license)
    for base in bases:
        if base.license is None:
            continue
        allowed = allowed_after(base.license)
        if allowed is not None and wanted not in allowed:
            possible = [one for one in allowed if all(one in (allowed_after(other.license) or [one])
                                                      for other in bases if other.license)]  # fmt: skip
            may = f"choose {' or '.join(possible)}" if possible else "we know of no licence that is possible"
            raise ReleaseError(
                f"--license {license}: these weights were trained from {base.name}, which is under {base.license}: "
                f"{may}, or ask its publisher for another licence."
            )


def allowed_after(license: str | None) -> tuple[str, ...] | None:
    """Returns the licences allowed after this one, or None for all. A licence not in the table allows only itself."""
    if license is None or license in _PERMISSIVE:
        return None
    return COMPATIBLE.get(license, (license,))


def spdx(license: str) -> str:
    """Returns the SPDX id of a licence given by its SPDX id or Hub name. Other names are returned unchanged."""
    return _SPELLINGS.get(license.lower(), license)


def _from_json(content: dict[str, Any]) -> Base:
    bases = tuple(_from_json(one) for one in content["bases"])
    return Base(
        str(content["name"]),
        content["license"],
        bool(content["demonstration"]),
        tuple(map(str, content["limits"])),
        bases,
    )


def _file(name: str, revision: str | None, file: str, fetch: bool) -> Path | None:
    if Path(name).is_dir():
        path = Path(name, file)
        return path if path.is_file() else None
    try:
        if fetch:
            with bounded_requests():
                return Path(hf_hub_download(name, file, revision=revision))
        found = try_to_load_from_cache(name, file, revision=revision or "main")
    except Exception:  # no such file, repository or network: treated as unknown
        return None
    return Path(found) if isinstance(found, str) else None


def _json(path: Path | None) -> Any:
    try:
        return None if path is None else json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _card(path: Path | None) -> tuple[str | None, tuple[str, ...]]:
    """Returns the licence and limits in a card."""
    if path is None or not path.is_file():
        return None, ()
    try:
        card = ModelCard.load(path)
    except Exception:  # its metadata is not valid YAML, or not in the Hub's form
        return None, ()
    data = card.data.to_dict()
    license = data.get("license_name") if data.get("license") == "other" else data.get("license")
    section = re.search(r"^## Limits\n(.*?)(?=^## |\Z)", card.text, re.DOTALL | re.MULTILINE)
    text = section[1] if section else ""
    bullets = re.findall(r"^[-*] (.*?)(?=^[-*] |^\S|\Z)", text, re.DOTALL | re.MULTILINE)
    limits = tuple(" ".join(limit.split()) for limit in bullets or [text] if limit.strip())
    return (spdx(license) if isinstance(license, str) and license != "unknown" else None), limits
