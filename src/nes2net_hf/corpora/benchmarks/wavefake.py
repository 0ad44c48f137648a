"""
WaveFake (Frank and Schönherr 2021, arXiv 2111.02813): vocoded speech; with LJSpeech 1.1 and JSUT, its bona fide part.

It has no metadata and no splits. Vocoded speech is spoofed, as its authors say. The place of JSUT's files was not
confirmed at its source.
"""

from __future__ import annotations

from ..corpus import Corpus, Row
from ..schema import make_row

_SPOOFS = "generated_audio"
_BONAFIDE = {("LJSpeech-1.1", "wavs"): "LJSpeech", ("jsut_ver1.1", "basic5000", "wav"): "JSUT"}  # one speaker each


def _parse_file(folders: tuple[str, ...], stem: str, partition: str) -> Row | None:
    """Returns the row of a file, by its folders. The folder below `generated_audio` is the attack, however spelled."""
    if _SPOOFS in folders[:-1]:
        inside = folders[folders.index(_SPOOFS) + 1 :]
        # One stem occurs in many sets, so the id begins with the folder.
        return make_row("/".join((*inside, stem)), "spoof", attack=inside[0])
    for place, speaker in _BONAFIDE.items():
        if folders[-len(place) :] == place:
            return make_row("/".join((*place, stem)), "bonafide", speaker_id=speaker)
    return None


CORPUS = Corpus(
    name="wavefake",
    title="WaveFake with LJSpeech and JSUT",
    folders={"all": ()},
    needed="unpack WaveFake (its folder generated_audio), LJSpeech-1.1 and jsut_ver1.1 there",
    parse_file=_parse_file,
)
