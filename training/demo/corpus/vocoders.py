"""
Copy-synthesis: analyses a human recording and synthesises it again, one function per attack.

Each function takes (S,) float32 at 16 kHz and a random generator that draws the variant. It returns about as many
samples. The keys of `VOCODERS` are values of `attack` in the manifest.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import librosa
import numpy as np
import pyworld
from scipy.signal import lfilter

from .audio import SAMPLE_RATE, resample, to_int16
from .errors import require_program
from .neural import hifigan

Vocoder = Callable[[np.ndarray, np.random.Generator], np.ndarray]
_FRAME_MS = 5.0


def _world_analysis(wave: np.ndarray, harvest: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns F0 (T,) in Hz, spectral envelope (T, 513) and aperiodicity (T, 513), every 5 ms."""
    signal = wave.astype(np.float64)
    if harvest:
        f0, times = pyworld.harvest(signal, SAMPLE_RATE, frame_period=_FRAME_MS)
    else:
        f0, times = pyworld.dio(signal, SAMPLE_RATE, frame_period=_FRAME_MS)
        f0 = pyworld.stonemask(signal, f0, times, SAMPLE_RATE)
    envelope = pyworld.cheaptrick(signal, f0, times, SAMPLE_RATE)
    return f0, envelope, pyworld.d4c(signal, f0, times, SAMPLE_RATE)


def world(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """WORLD with dio or harvest. Half the time, envelope and aperiodicity are coded as coarsely as TTS predicts."""
    f0, envelope, aperiodicity = _world_analysis(wave, harvest=bool(rng.integers(2)))
    if rng.integers(2):
        coefficients = int(rng.integers(24, 61))
        coded = pyworld.code_spectral_envelope(envelope, SAMPLE_RATE, coefficients)
        envelope = pyworld.decode_spectral_envelope(coded, SAMPLE_RATE, 1024)
        coded = pyworld.code_aperiodicity(aperiodicity, SAMPLE_RATE)
        aperiodicity = pyworld.decode_aperiodicity(coded, SAMPLE_RATE, 1024)
    return pyworld.synthesize(f0, envelope, aperiodicity, SAMPLE_RATE, _FRAME_MS).astype(np.float32)


def world_shifted(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """WORLD with pitch shifted by 2 to 6 semitones and formants by 5 to 18 %: a simple voice conversion."""
    f0, envelope, aperiodicity = _world_analysis(wave, harvest=False)
    direction = rng.choice([-1.0, 1.0])
    pitch = 2.0 ** (direction * rng.uniform(2.0, 6.0) / 12.0)
    stretch = 1.0 + direction * rng.uniform(0.05, 0.18)
    bins = np.arange(envelope.shape[1])
    source = np.clip(bins / stretch, 0, bins[-1])
    log_envelope = np.log(envelope)
    envelope = np.exp(np.stack([np.interp(source, bins, frame) for frame in log_envelope]))
    return pyworld.synthesize(f0 * pitch, envelope, aperiodicity, SAMPLE_RATE, _FRAME_MS).astype(np.float32)


def _from_mel(magnitude: np.ndarray, bands: int) -> np.ndarray:
    """Reconstructs `magnitude` (F, T) from its mel spectrogram of `bands` bands."""
    filters = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=2 * (magnitude.shape[0] - 1), n_mels=bands)
    # In double precision, because Griffin-Lim amplifies differences in the last digit.
    inverse = np.linalg.pinv(filters.astype(np.float64)).astype(np.float32)
    return np.maximum(inverse @ (filters @ magnitude), 1e-8)


def griffin_lim(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Inverts a mel spectrogram of 40 to 80 bands with 4 to 60 rounds of (fast) Griffin-Lim."""
    bands, rounds = int(rng.choice([40, 64, 80])), int(rng.choice([4, 16, 32, 60]))
    magnitude = _from_mel(np.abs(librosa.stft(wave, n_fft=1024, hop_length=256)), bands)
    seed = int(rng.integers(2**31))
    inverted = librosa.griffinlim(
        magnitude, n_iter=rounds, hop_length=256, momentum=float(rng.choice([0.0, 0.99])), random_state=seed
    )
    return inverted.astype(np.float32)


def mel_magnitude(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """
    Combines mel-smoothed magnitudes with the recording's phase, roughened by up to half a radian.

    It resembles a good neural vocoder: the phase is almost right, but not the fine structure between harmonics.
    """
    spectrum = librosa.stft(wave, n_fft=1024, hop_length=256)
    magnitude = _from_mel(np.abs(spectrum), int(rng.choice([40, 64, 80])))
    jitter = rng.uniform(0.0, 0.5) * rng.standard_normal(spectrum.shape)
    return librosa.istft(magnitude * np.exp(1j * (np.angle(spectrum) + jitter)), hop_length=256).astype(np.float32)


def stft_phase(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Combines the recording's magnitudes with other phases: random, or of a phase vocoder that stretches and back."""
    hop = int(rng.choice([128, 256]))
    spectrum = librosa.stft(wave, n_fft=4 * hop, hop_length=hop)
    if rng.integers(2):
        rate = rng.uniform(1.15, 1.5)
        stretched = librosa.phase_vocoder(spectrum, rate=rate, hop_length=hop)
        spectrum = librosa.phase_vocoder(stretched, rate=1.0 / rate, hop_length=hop)
    else:
        spread = rng.uniform(0.5, 1.0) * np.pi
        spectrum = spectrum * np.exp(1j * rng.uniform(-spread, spread, spectrum.shape))
    return librosa.istft(spectrum, hop_length=hop).astype(np.float32)


def sinusoidal(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Harmonics of the measured F0 with the envelope's amplitudes and random phases, and noise above a limit."""
    f0, envelope, _ = _world_analysis(wave, harvest=False)
    limit = rng.uniform(3000.0, 7000.0)
    samples = np.arange(wave.size) / SAMPLE_RATE
    times = np.arange(f0.size) * _FRAME_MS / 1000.0
    voiced = np.interp(samples, times, (f0 > 0).astype(float))
    track = np.interp(samples, times[f0 > 0], f0[f0 > 0]) if (f0 > 0).any() else np.full(wave.size, 120.0)
    phase = 2.0 * np.pi * np.cumsum(track) / SAMPLE_RATE
    log_amplitude = 0.5 * np.log(envelope + 1e-16)
    harmonic = np.zeros(wave.size)
    frames = np.arange(f0.size)
    for number in range(1, int(limit / max(track.min(), 60.0)) + 1):
        frequency = np.interp(times, samples, track) * number
        bins = np.clip(np.round(frequency * 1024 / SAMPLE_RATE).astype(int), 0, 512)
        # In a pulse train of unit power per sample, a harmonic's amplitude is sqrt(2 * F0 / rate) of the envelope.
        amplitude = np.exp(log_amplitude[frames, bins]) * (frequency < limit) * np.sqrt(frequency / number)
        # Cosines in phase would make peaks that the crest factor reveals.
        harmonic += np.interp(samples, times, amplitude) * np.cos(number * phase + rng.uniform(0.0, 2.0 * np.pi))
    excitation = librosa.stft(rng.standard_normal(wave.size), n_fft=1024, hop_length=80)
    shape = np.exp(log_amplitude.T)[:, : excitation.shape[1]] / np.sqrt(1024.0)
    above = (np.fft.rfftfreq(1024, 1 / SAMPLE_RATE) >= limit)[:, None] | (f0 == 0)[None, : shape.shape[1]]
    noise = librosa.istft(excitation[:, : shape.shape[1]] * shape * above, hop_length=80, length=wave.size)
    harmonic *= voiced
    # Each part gets the recording's power, so that neither masks the other.
    target = float(np.sqrt(np.mean(wave**2)))
    harmonic *= target / (np.sqrt(np.mean(harmonic**2)) + 1e-9)
    noise *= np.sqrt(_power_above(wave, limit) / (_power_above(noise, limit) + 1e-12))
    return (harmonic + noise).astype(np.float32)


def _power_above(wave: np.ndarray, frequency: float) -> float:
    power = np.abs(np.fft.rfft(wave)) ** 2
    return float(power[np.fft.rfftfreq(wave.size, 1 / SAMPLE_RATE) >= frequency].sum() / wave.size**2)


def lpc(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Linear prediction of order 16 to 24 every 10 ms, excited by noise or by pulses at the measured F0 (LPC-10)."""
    order, hop, width = int(rng.integers(16, 25)), 160, 480
    f0, _ = pyworld.dio(wave.astype(np.float64), SAMPLE_RATE, frame_period=10.0)
    window, output = np.hanning(width), np.zeros(wave.size + width)
    state, next_pulse = np.zeros(order), 0.0
    padded = np.pad(wave.astype(np.float64), (width // 2, width))
    for index, pitch in enumerate(f0[: wave.size // hop]):
        start = index * hop
        segment = padded[start : start + width] * window
        power = np.mean(padded[start + width // 2 : start + width // 2 + hop] ** 2)
        if power < 1e-9:
            state[:] = 0.0
            continue
        # White noise 60 dB below the segment keeps the recursion stable.
        autocorrelation = np.correlate(segment, segment, "full")[width - 1 : width + order]
        autocorrelation[0] *= 1.0 + 1e-6
        coefficients = _levinson(autocorrelation)
        excitation = rng.standard_normal(hop)
        if pitch > 0:
            excitation *= 0.1
            while next_pulse < start + hop:
                excitation[int(max(next_pulse - start, 0))] += np.sqrt(SAMPLE_RATE / pitch)
                next_pulse += SAMPLE_RATE / pitch
        next_pulse = max(next_pulse, start + hop)
        gain = np.sqrt(max(np.dot(coefficients, autocorrelation), 1e-12) / np.sum(window**2))
        output[start : start + hop], state = lfilter([gain], coefficients, excitation, zi=state)
    return output[: wave.size].astype(np.float32)


def _levinson(autocorrelation: np.ndarray) -> np.ndarray:
    """Returns the prediction error filter (order + 1,) of an autocorrelation (order + 1,)."""
    coefficients, error = np.array([1.0]), autocorrelation[0]
    for order in range(1, autocorrelation.size):
        reflection = -np.dot(coefficients, autocorrelation[order:0:-1]) / error
        extended = np.append(coefficients, 0.0)
        coefficients = extended + reflection * extended[::-1]
        error *= 1.0 - reflection**2
    return coefficients


def codec2(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The speech coder Codec2 at 3200, 2400, 1600, 1300 or 700 bit/s. It runs at 8 kHz, so only for `g722-8k`."""
    rate = str(rng.choice(["3200", "2400", "1600", "1300", "700C"]))
    encoder, decoder = require_program("c2enc", "codec2"), require_program("c2dec", "codec2")
    narrow = resample(wave * 0.1 / (np.sqrt(np.mean(wave**2)) + 1e-9), SAMPLE_RATE, 8000)
    bits = subprocess.run([encoder, rate, "-", "-"], input=to_int16(narrow).tobytes(), capture_output=True, check=True)
    decoded = subprocess.run([decoder, rate, "-", "-"], input=bits.stdout, capture_output=True, check=True).stdout
    return resample(np.frombuffer(decoded, dtype="<i2").astype(np.float32) / 32768.0, 8000)


VOCODERS: dict[str, Vocoder] = {
    "hifigan": hifigan,
    "world": world,
    "griffin-lim": griffin_lim,
    "mel-magnitude": mel_magnitude,
    "stft-phase": stft_phase,
    "sinusoidal": sinusoidal,
    "lpc": lpc,
    "codec2": codec2,
    "world-shifted": world_shifted,
}
