"""The two ways of some augmentations: exact, or as in the published systems of the authors of Nes2Net."""

from __future__ import annotations

WAYS = ("exact", "authors")


def check_way(setting: str, way: str) -> None:
    """Raises ValueError unless `way`, the value of `setting`, is in `WAYS`."""
    if way not in WAYS:
        raise ValueError(f"{setting} must be {' or '.join(WAYS)}, got {way!r}.")
