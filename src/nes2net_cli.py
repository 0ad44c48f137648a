"""
The console entry: `nes2net_hf/cli.py` run ahead of its package, whose `__init__` imports torch and transformers.

So help and wrong usage are answered at once, and what goes wrong in those imports, or an interrupt meanwhile, ends as
`cli.main` ends it. The package itself is imported by the first command that needs it.
"""

import importlib.util
from importlib.machinery import PathFinder


def main() -> None:
    package = importlib.util.find_spec("nes2net_hf")  # of a package at the top this imports nothing
    assert package is not None
    spec = PathFinder.find_spec("nes2net_hf.cli", package.submodule_search_locations)
    assert spec is not None and spec.loader is not None
    cli = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(cli)
    cli.main()


if __name__ == "__main__":
    main()
