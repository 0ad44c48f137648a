"""The web page of `nes2net demo`. Needs the extra `demo`."""

from .page import build_page, serve

__all__ = ["build_page", "serve"]
