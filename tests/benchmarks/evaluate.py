"""
Full-size rehearsals of `nes2net evaluate` on synthetic scores: time and peak memory.

    python tests/benchmarks/evaluate.py

181,566 trials in the form of ASVspoof 2021 LA (of which its eval phase, 148,176, is reported) and 680,774 in that of
ASVspoof 5, each with its whole breakdown, intervals by speaker, report and plots; then EER, DCFs and Cllr of a million
scores in one process.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

MILLION = """
import resource, time, numpy as np
from nes2net_hf.metrics import actual_dcf, cllr, equal_error_rate, min_cllr, min_dcf
rng = np.random.default_rng(0)
bonafide, spoof = rng.normal(2, 1, 100_000), rng.normal(-2, 1, 900_000)
min_cllr(bonafide[:9], spoof[:9])  # scipy is imported
before = time.perf_counter()
equal_error_rate(bonafide, spoof), min_dcf(bonafide, spoof), actual_dcf(bonafide, spoof), cllr(bonafide, spoof)
middle = time.perf_counter()
min_cllr(bonafide, spoof)
after = time.perf_counter()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(f"a million scores: EER, DCFs and Cllr {middle - before:.2f} s, min Cllr {after - middle:.2f} s; {peak:.0f} MiB")
"""


def asvspoof2021_la(folder: Path, rng: np.random.Generator) -> list[str]:
    """Keys and scores of 2021 LA's size and form; the harder the codec, the closer the scores."""
    codecs, phases = ("none", "alaw", "pstn", "g722", "ulaw", "gsm", "opus"), ("progress", "eval", "hidden_track")
    shares = np.array([16_464, 148_176, 16_926]) / 181_566
    keys, scores = [], []
    for number in range(181_566):
        spoofed = rng.random() < 0.9
        attack = f"A{rng.integers(7, 20):02}" if spoofed else "bonafide"
        codec, phase = rng.integers(7), phases[rng.choice(3, p=shares)]
        label = "spoof" if spoofed else "bonafide"
        speaker = f"LA_{rng.integers(67):04}"
        keys.append(f"{speaker} LA_E_{number:07} {codecs[codec]} ita_tx {attack} {label} notrim {phase}")
        scores.append(f"LA_E_{number:07} {(-1 if spoofed else 1) * (2 - 0.15 * codec) + rng.normal():.6f}")
    return _write(folder, keys, scores, "trial_metadata.txt", "asvspoof2021-la")


def asvspoof5(folder: Path, rng: np.random.Generator) -> list[str]:
    """Keys and scores of ASVspoof 5's evaluation set, by size and form."""
    keys, scores = [], ["filename\tcm-score"]
    for number in range(680_774):
        spoofed = rng.random() < 0.8
        attack = f"A{rng.integers(17, 33):02}" if spoofed else "bonafide"
        codec = f"C{rng.integers(12):02}"
        setting = "-" if codec == "C00" else str(rng.integers(1, 6))
        label = "spoof" if spoofed else "bonafide"
        speaker, gender = f"E_{rng.integers(737):04}", "FM"[rng.integers(2)]
        keys.append(f"{speaker} E_{number:010} {gender} {codec} {setting} - AC3 {attack} {label} -")
        scores.append(f"E_{number:010}\t{(-1 if spoofed else 1) * 1.5 + rng.normal():.6f}")
    return _write(folder, keys, scores, "ASVspoof5.eval.track_1.tsv", "asvspoof5")


def _write(folder: Path, keys: list[str], scores: list[str], name: str, benchmark: str) -> list[str]:
    folder.mkdir()
    (folder / name).write_text("\n".join(keys) + "\n", encoding="utf-8")
    (folder / "scores.txt").write_text("\n".join(scores) + "\n", encoding="utf-8")
    return [str(folder / "scores.txt"), "--keys", str(folder / name), "--benchmark", benchmark]


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for make in (asvspoof2021_la, asvspoof5):
            options = make(Path(scratch) / make.__name__, np.random.default_rng(0))
            command = [sys.executable, "-m", "nes2net_cli", "evaluate", *options, "--report", f"{scratch}/report"]
            started = time.perf_counter()
            subprocess.run(command, check=True)
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024  # of the largest so far
            print(f"{make.__name__}: {time.perf_counter() - started:.1f} s, {peak:.0f} MiB\n", flush=True)
    subprocess.run([sys.executable, "-c", MILLION], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
