"""`python -m nes2net_cli` is `nes2net`."""

from . import main

main()
