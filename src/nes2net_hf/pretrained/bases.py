"""
What a model was trained from, and under which licences it may so be passed on.

A run writes `base.json` into each model's folder: what it needs to know when the base has moved. Whether weights are a
derivative work of the weights that training began with is not settled in law; here they are taken for one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, hf_hub_download, try_to_load_from_cache

from ..errors import ReleaseError
from ..hub import bounded_requests

BASE = "base.json"
README = "README.md"

_PERMISSIVE = {
    "Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "ISC", "CC0-1.0", "Unlicense", "CC-BY-3.0", "CC-BY-4.0",
}  # fmt: skip
_GPL_3 = ("GPL-3.0-only", "GPL-3.0-or-later")
# Licence of the base → those that weights trained from it may have, where these are not all.
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
    "CC-BY-SA-3.0": ("CC-BY-SA-3.0", "CC-BY-SA-4.0", "GPL-3.0-only"),  # the last by way of CC-BY-SA-4.0
    "CC-BY-SA-4.0": ("CC-BY-SA-4.0", "GPL-3.0-only"),
    "CC-BY-NC-3.0": ("CC-BY-NC-3.0", "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0"),
    "CC-BY-NC-4.0": ("CC-BY-NC-4.0", "CC-BY-NC-SA-4.0"),
    "CC-BY-NC-SA-3.0": ("CC-BY-NC-SA-3.0", "CC-BY-NC-SA-4.0"),
    "CC-BY-NC-SA-4.0": ("CC-BY-NC-SA-4.0",),
    "CC-BY-ND-4.0": (),
    "CC-BY-NC-ND-4.0": (),
}
# The Hub's names that do not say "only" or "or later" are read as the narrower.
_SPELLINGS = {name.lower(): name for name in (*_PERMISSIVE, *COMPATIBLE)} | {
    f"{name}-{version}": f"{name.upper()}-{version}-only"
    for name, version in (("gpl", "2.0"), ("gpl", "3.0"), ("lgpl", "3.0"), ("agpl", "3.0"))
}


@dataclass(frozen=True)
class Base:
    """A model that training began with."""

    name: str
    """Hub id, or the last part of its folder's path."""
    license: str | None
    """SPDX id where it has one; None where its card does not say."""
    demonstration: bool = False
    """Whether its configuration says so."""
    limits: tuple[str, ...] = ()
    """As its card lists them."""
    bases: tuple[Base, ...] = field(default=())
    """What it was trained from itself: none or one."""

    def chain(self) -> Iterator[Base]:
        """This one, and what it was trained from, and so on."""
        yield self
        for base in self.bases:
            yield from base.chain()


def describe_base(name: str, revision: str | None = None, fetch: bool = False) -> Base:
    """
    What is known of a model that training begins with.

    Args:
        name: Hub id or folder.
        fetch: whether its card may be asked for at the Hub, or only be taken from the cache.
    """
    files = {file: _file(name, file, revision, fetch) for file in (README, BASE, "config.json")}
    config = _json(files["config.json"]) or {}
    license, limits = _card(files[README])
    return Base(
        name=Path(name).resolve().name if Path(name).is_dir() else name,
        license=license,
        demonstration=config.get("demonstration") is True,
        limits=limits,
        bases=tuple(filter(None, [read_base(files[BASE])])),
    )


def write_base(base: Base, folder: Path) -> None:
    (folder / BASE).write_text(json.dumps(asdict(base), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_base(path: Path | None) -> Base | None:
    """
    What `write_base` wrote, or None where there is none.

    Raises:
        ReleaseError: it is damaged.
    """
    if path is None or not path.is_file():
        return None
    try:
        return _from_json(json.loads(path.read_text(encoding="utf-8")))
    except (KeyError, TypeError, AttributeError, ValueError):
        raise ReleaseError(f"{path} is not as training writes it: copy it again from the run.") from None


def folder_license(folder: Path) -> str | None:
    """What the card in a model's folder says of its licence."""
    return _card(folder / README)[0]


def check_license(license: str, bases: list[Base]) -> None:
    """
    Raises:
        ReleaseError: weights that were trained from these may not be released under this licence; the message says
            under which they may.
    """
    wanted = spdx(license)
    for base in bases:
        if base.license is None:
            continue
        allowed = allowed_after(base.license)
        if allowed is not None and wanted not in allowed:
            possible = [one for one in allowed if all(one in (allowed_after(other.license) or [one])
                                                      for other in bases if other.license)]  # fmt: skip
            may = f"choose {' or '.join(possible)}" if possible else "no licence is possible that we know of"
            raise ReleaseError(
                f"--license {license}: these weights come from {base.name}, which is under {base.license}: {may}, or "
                "ask its publisher for another one."
            )


def allowed_after(license: str | None) -> tuple[str, ...] | None:
    """Licences that may follow this one; None for all. Of one that is not in the table, itself alone."""
    if license is None or license in _PERMISSIVE:
        return None
    return COMPATIBLE.get(license, (license,))


def spdx(license: str) -> str:
    """The SPDX id of a licence that is named by it, or as the Hub names it; others stay as they are."""
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


def _file(name: str, file: str, revision: str | None, fetch: bool) -> Path | None:
    if Path(name).is_dir():
        path = Path(name, file)
        return path if path.is_file() else None
    try:
        if fetch:
            with bounded_requests():
                return Path(hf_hub_download(name, file, revision=revision))
        found = try_to_load_from_cache(name, file, revision=revision or "main")
    except Exception:  # no such file, no network, no such repository: then it is not known
        return None
    return Path(found) if isinstance(found, str) else None


def _json(path: Path | None) -> Any:
    try:
        return None if path is None else json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _card(path: Path | None) -> tuple[str | None, tuple[str, ...]]:
    """Licence and limits that a card names."""
    if path is None or not path.is_file():
        return None, ()
    try:
        card = ModelCard.load(path)
    except Exception:  # its metadata are no YAML, or not as the Hub has them
        return None, ()
    data = card.data.to_dict()
    license = data.get("license_name") if data.get("license") == "other" else data.get("license")
    section = re.search(r"^## Limits\n(.*?)(?=^## |\Z)", card.text, re.DOTALL | re.MULTILINE)
    bullets = re.findall(r"^- (.*?)(?=^- |^\S|\Z)", section[1] if section else "", re.DOTALL | re.MULTILINE)
    limits = tuple(" ".join(bullet.split()) for bullet in bullets)
    return (spdx(license) if isinstance(license, str) and license != "unknown" else None), limits
