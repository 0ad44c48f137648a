"""ASVspoof 2021 DF (Yamagishi et al. 2021): three sources, more than a hundred attacks, lossy media codecs."""

from __future__ import annotations

from ..corpus import Corpus, Row
from ..labels import map_label
from ..schema import make_row
from .asvspoof2021_la import NO_KEYS, phases


def _parse(fields: list[str], where: str, partition: str) -> Row:
    speaker, utterance, codec, source, attack, key, trim, phase, vocoder, *rest = fields
    label = map_label(key, where)
    # Lines from the Voice Conversion Challenges add task, team, genders of source and target (FF, MF, …), language.
    gender, language = rest[2:4] if len(rest) >= 4 else (None, None)
    is_spoof = label == "spoof"
    return make_row(
        utterance, label, speaker_id=speaker, codec=codec, source=source, trim=trim, phase=phase, gender=gender,
        language=language, attack=attack if is_spoof else None, vocoder=vocoder if is_spoof else None,
        partition=partition,
    )  # fmt: skip


CORPUS = Corpus(
    name="asvspoof2021-df",
    title="ASVspoof 2021 DF",
    protocols={"eval": ("DF/CM/trial_metadata.txt", "CM/trial_metadata.txt")},
    needed=NO_KEYS,
    columns=("speaker", "utterance", "codec", "source", "attack", "key", "trim", "phase", "vocoder"),
    parse=_parse,
    folders={"eval": ("ASVspoof2021_DF_eval",)},
    counts={"eval": 611_829},
    conditions=phases({}),
    usual_condition="eval",
)
