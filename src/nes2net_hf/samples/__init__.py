"""The two bundled recordings: what `nes2net detect --demo` judges, and what a released folder is tried on."""

from pathlib import Path

FOLDER = Path(__file__).parent
BONAFIDE, SPOOF = FOLDER / "bonafide.flac", FOLDER / "spoof.flac"
