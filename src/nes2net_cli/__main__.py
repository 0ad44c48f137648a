"""Runs `nes2net` as `python -m nes2net_cli`."""

from . import main

main()
