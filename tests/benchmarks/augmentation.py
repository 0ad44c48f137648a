"""
How fast RawBoost is against a direct formulation with `scipy.signal.lfilter`, on ten seconds of speech-like noise.

    python tests/benchmarks/augmentation.py --rounds 30

Both draw the same random numbers, and their results are compared. Prints milliseconds and their ratio, in one run.
"""

import argparse
import time

import numpy as np
from scipy.signal import lfilter

from nes2net_hf.augmentation import RawBoost


class Direct(RawBoost):
    """The same parts with each filter run over the waveform by itself."""

    def _filtered(self, wave: np.ndarray, taps: np.ndarray) -> np.ndarray:
        delay = taps.size // 2
        return lfilter(taps, 1, np.pad(wave, (0, delay)))[delay:]

    def convolutive(self, wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        total = np.zeros(wave.size)
        for order in range(self.powers):
            least, most = (0.0, 0.0) if order == 0 else self.bias
            taps = self._notches(rng, (self.gain[0] - most, self.gain[1] - least))
            total += self._filtered(wave ** (order + 1), taps)
        total -= total.mean()
        return total / max(1.0, np.abs(total).max())

    def stationary(self, wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        taps = self._notches(rng, self.gain)
        noise = self._filtered(rng.standard_normal(wave.size), taps)
        return wave + noise * (np.linalg.norm(wave) / np.linalg.norm(noise) / 10 ** (rng.uniform(*self.snr) / 20))


def seconds(boost: RawBoost, wave: np.ndarray, rounds: int) -> float:
    times = []
    for seed in range(rounds):
        rng = np.random.default_rng(seed)
        start = time.perf_counter()
        boost(wave, rng)
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    wave = (0.1 * np.random.default_rng(0).standard_normal(160_000)).astype(np.float32)
    for number, name in ((1, "LnL"), (2, "ISD"), (3, "SSI"), (4, "in series"), (8, "LnL and ISD in parallel")):
        ours, direct = RawBoost(number), Direct(number)
        gap = max(
            float(np.abs(ours(wave, np.random.default_rng(s)) - direct(wave, np.random.default_rng(s))).max())
            for s in range(3)
        )
        fast, slow = seconds(ours, wave, rounds), seconds(direct, wave, rounds)
        print(
            f"RawBoost {number} ({name}): {1000 * fast:.1f} ms, direct {1000 * slow:.1f} ms, {slow / fast:.1f} times "
            f"as fast; results differ by {gap:.0e} at most"
        )


if __name__ == "__main__":
    main()
