"""`nes2net cache`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from .console import as_utf8, ending


def cache(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Only these: their source, or the name of their folder."),
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Remove them instead of listing them.")] = False,
) -> int:
    """
    List or remove the official checkpoints that were converted to be used as models. Files downloaded from the Hub are
    in its own cache: see hf cache.

    Exit codes:
      0    they were listed or removed
      1    standard output cannot be written
      2    the cache has no such checkpoint, or cannot be changed
      130  interrupted
    """
    with ending() as end:
        from nes2net_hf.errors import UsageError
        from nes2net_hf.pretrained.cache import clear as remove
        from nes2net_hf.pretrained.cache import entries

        as_utf8(sys.stdout)
        found = entries()
        for name in names or []:
            if not any(name in (entry.source, entry.folder.name) for entry in found):
                raise UsageError(f"the cache has no {name}: nes2net cache lists what it has.")
        if names:
            found = [entry for entry in found if entry.source in names or entry.folder.name in names]
        for entry in found:
            stated = ", ".join(f"{key} {value}" for key, value in entry.stated.items() if key != "encoder_sha256")
            commit = f" at commit {entry.commit[:12]}" if entry.commit else ""
            size = f"{entry.size / 1e6:,.1f} MB"
            if clear:
                remove(entry)
            print(f"{entry.source}{commit}")
            print(f"  {size}, {'removed' if clear else f'made {entry.date[:10]}'}, {stated}")
            if not clear:
                print(f"  {entry.folder}")
        if not found:
            print("The cache is empty.")
    return end.code
