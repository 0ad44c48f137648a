"""Noises and room responses for the training's augmentation: folders for its `Noise` and `Room`."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np

from . import audio
from .errors import CorpusError
from .sources import NOISES

PIECE_SECONDS = 10.0
SILENT_PEAK = 10 ** (-50 / 20)

ROOMS = {"train": 300, "dev": 60}
SIDE, HEIGHT = (3.0, 10.0), (2.5, 4.0)  # metres
DISTANCE = (0.5, 4.0)  # metres from the source to the microphone
WALL_DISTANCE = 0.5  # metres that both keep from walls, floor and ceiling
DECAY_SECONDS = (0.15, 0.9)  # to -60 dB
RESPONSE_PEAK = 0.9

COLUMNS = ("file", "package", "source", "licence", "attribution")


def write_noises(packages: Path, out: Path) -> list[dict[str, str]]:
    """
    Cuts the packages' noises into pieces of about ten seconds, 16 kHz mono, at the level they have; silent pieces are
    left out. The pieces are in `out/noise/train` and `out/noise/dev`, and `out/noise/noises.csv` says where they are
    from. An older folder is replaced.

    Args:
        packages: the folder of `sources.fetch`.

    Returns:
        The lines of `noises.csv`, one per piece.

    Raises:
        CorpusError: a pattern of `NOISES` has no file.
    """
    root = out / "noise"
    shutil.rmtree(root, ignore_errors=True)
    lines = []
    for noise in NOISES:
        folder = packages / noise.package / "usr/share" / noise.folder
        for pattern in noise.patterns:
            paths = sorted(folder.glob(pattern))
            if not paths:
                raise CorpusError(
                    f"{noise.package} has no {pattern}: delete {packages / noise.package} and build again."
                )
            for path in paths:
                name = str(path.relative_to(folder))
                stem = f"{noise.partition}/{noise.package}/{name.replace('/', '-').removesuffix('.ogg')}"
                for number, piece in enumerate(cut(audio.resample(*audio.decode(path)))):
                    file = f"{stem}-{number:02d}.flac"
                    audio.write(root / file, piece)
                    values = (file, noise.package, name, noise.licence, noise.attribution)
                    lines.append(dict(zip(COLUMNS, values)))
    with open(root / "noises.csv", "w", newline="", encoding="utf-8") as csv_file:
        writer = csv.DictWriter(csv_file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    return lines


def cut(wave: np.ndarray) -> list[np.ndarray]:
    """Cuts (S,) into equal pieces of about ten seconds, without the silent ones."""
    count = max(1, round(wave.size / audio.SAMPLE_RATE / PIECE_SECONDS))
    return [piece for piece in np.array_split(wave, count) if np.abs(piece).max(initial=0.0) >= SILENT_PEAK]


def write_rooms(out: Path, seed: int) -> None:
    """
    Simulates room impulse responses: `out/rooms/train` and `out/rooms/dev`, 16 kHz. The same seed gives the same ones.

    A finished folder is kept, because they take two minutes. Delete it to have others.
    """
    finished, unfinished = out / "rooms", out / "rooms.part"
    if finished.is_dir():
        return
    shutil.rmtree(unfinished, ignore_errors=True)
    for stream, (partition, count) in enumerate(ROOMS.items()):
        for number in range(count):
            response = simulate_room(np.random.default_rng([seed, stream, number]))
            audio.write(unfinished / partition / f"room-{number:03d}.flac", response)
    unfinished.rename(finished)


def simulate_room(rng: np.random.Generator) -> np.ndarray:
    """
    Returns the impulse response (S,) of a random shoebox room, from a random source to a random microphone.

    Its largest peak, 0.9, is the direct sound: the training's `Room` takes the largest peak for it.
    """
    import pyroomacoustics

    # More threads would add up the images in another order.
    pyroomacoustics.constants.set("num_threads", 1)
    while True:
        size = np.array([rng.uniform(*SIDE), rng.uniform(*SIDE), rng.uniform(*HEIGHT)])
        seconds = rng.uniform(*DECAY_SECONDS)
        try:
            absorption, order = pyroomacoustics.inverse_sabine(seconds, size)
        except ValueError:  # even with open windows for walls, so large a room echoes longer
            continue
        source, microphone = place(size, rng)
        room = pyroomacoustics.ShoeBox(
            size, fs=audio.SAMPLE_RATE, materials=pyroomacoustics.Material(absorption), max_order=order
        )
        room.add_source(source)
        room.add_microphone(microphone)
        room.compute_rir()
        response = room.rir[0][0]
        # The first image is the source itself. The library's filters for fractions of a sample delay all images.
        travel = np.linalg.norm(source - microphone) / room.c
        direct = travel * audio.SAMPLE_RATE + pyroomacoustics.constants.get("frac_delay_length") // 2
        peak = int(np.abs(response).argmax())
        if abs(peak - direct) < 2:  # rarely, several reflections arrive at once and are louder
            response = response[: peak + round(seconds * audio.SAMPLE_RATE)]
            return (RESPONSE_PEAK / abs(response[peak]) * response).astype(np.float32)


def place(size: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns random positions (3,) of a source and a microphone in a room of `size` (3,), in metres."""
    while True:
        microphone = rng.uniform(WALL_DISTANCE, size - WALL_DISTANCE)
        direction = rng.standard_normal(3)
        source = microphone + rng.uniform(*DISTANCE) * direction / np.linalg.norm(direction)
        if (source > WALL_DISTANCE).all() and (source < size - WALL_DISTANCE).all():
            return source, microphone
