"""The demonstration model's noises and room responses, without downloads."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

sys.path.append(str(Path(__file__).parents[2] / "training/demo"))

from corpus import audio, sources, surroundings
from corpus.errors import CorpusError

from nes2net_hf.augmentation.noise import Noise
from nes2net_hf.augmentation.room import Room

RATE = audio.SAMPLE_RATE
# A source of train and one of dev, in the folder of an archive.
NOISES = tuple(
    sources.NoiseSource(
        "game-data", "games/game/sound", (pattern,), partition, "CC0-1.0", "Someone", "games/game/game.zip"
    )
    for partition, pattern in (("train", "weather/rain*.ogg"), ("dev", "wind.ogg"))
)


def hiss(seconds: float, level: float = 0.05, rate: int = 44100) -> np.ndarray:
    """Noise on two channels: (S, 2)."""
    return level * np.random.default_rng(0).uniform(-1, 1, (round(seconds * rate), 2))


def write_sound(path: Path, wave: np.ndarray, rate: int = 44100) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate)


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `fetch` leaves of the package of `NOISES`."""
    monkeypatch.setattr(surroundings, "NOISES", NOISES)
    folder = tmp_path / "packages/game-data/usr/share/games/game/sound"
    write_sound(folder / "weather/rain_1.ogg", hiss(24.0))
    write_sound(folder / "weather/rain_2.ogg", hiss(3.0))
    write_sound(folder / "wind.ogg", hiss(10.0))
    write_sound(folder / "music.ogg", hiss(10.0))
    return tmp_path / "packages"


def test_noises_are_cut_into_pieces_of_about_ten_seconds_at_their_own_level(packages: Path, tmp_path: Path):
    surroundings.write_noises(packages, tmp_path / "out")
    root = tmp_path / "out/noise/train/game-data"
    lengths = {path.name: soundfile.info(path).duration for path in sorted(root.iterdir())}
    assert lengths == pytest.approx(
        {"weather-rain_1-00.flac": 12.0, "weather-rain_1-01.flac": 12.0, "weather-rain_2-00.flac": 3.0}, abs=0.01
    )
    piece = audio.read(root / "weather-rain_1-00.flac")
    # Uniform noise has a power of a third of its peak's; the mean of two equal channels is either of them, and 16 kHz
    # hold 8 of the 22.05 kHz.
    assert np.sqrt(np.mean(hiss(1.0).mean(axis=1) ** 2) * 8 / 22.05) == pytest.approx(piece.std(), rel=0.1)
    assert soundfile.info(root / "weather-rain_1-00.flac").samplerate == RATE


def test_each_file_of_the_packages_is_in_one_partition_and_credited(packages: Path, tmp_path: Path):
    lines = surroundings.write_noises(packages, tmp_path)
    with open(tmp_path / "noise/noises.csv", newline="", encoding="utf-8") as file:
        assert list(csv.DictReader(file)) == lines
    assert sorted((line["file"].split("/")[0], line["source"]) for line in lines) == [
        ("dev", "wind.ogg"),
        ("train", "weather/rain_1.ogg"),
        ("train", "weather/rain_1.ogg"),
        ("train", "weather/rain_2.ogg"),
    ]
    assert {(line["package"], line["licence"], line["attribution"]) for line in lines} == {
        ("game-data", "CC0-1.0", "Someone")
    }
    assert all((tmp_path / "noise" / line["file"]).is_file() for line in lines)


def test_silent_pieces_are_dropped():
    loud, quiet = hiss(10.0, 0.1, RATE)[:, 0], hiss(10.0, 0.003, RATE)[:, 0]
    assert [piece.size for piece in surroundings.cut(np.concatenate([loud, quiet, loud]))] == [10 * RATE] * 2
    assert surroundings.cut(quiet) == surroundings.cut(quiet[:0]) == []


def test_noises_of_an_older_run_are_replaced(packages: Path, tmp_path: Path):
    write_sound(tmp_path / "noise/train/game-data/wind-00.flac", hiss(1.0))
    surroundings.write_noises(packages, tmp_path)
    assert not (tmp_path / "noise/train/game-data/wind-00.flac").exists()


def test_missing_sounds_are_named(packages: Path, tmp_path: Path):
    (packages / "game-data/usr/share/games/game/sound/wind.ogg").unlink()
    with pytest.raises(CorpusError, match=r"game-data has no wind\.ogg"):
        surroundings.write_noises(packages, tmp_path)


def test_training_reads_the_noises(packages: Path, tmp_path: Path):
    surroundings.write_noises(packages, tmp_path)
    noise = Noise(root=str(tmp_path / "noise/train"), snr=(10.0, 10.0))
    wave = np.sin(np.arange(RATE) / 5).astype(np.float32)
    added = noise(wave, np.random.default_rng(0)) - wave
    assert len(noise.recordings) == 3
    assert 10 * np.log10(np.mean(wave**2) / np.mean(added**2)) == pytest.approx(10.0, abs=0.1)


def test_no_pattern_of_the_packages_matches_the_other_partition():
    """Each pattern, with something for its wildcards, is a name that only the patterns of its own partition match."""
    for noise in sources.NOISES:
        for pattern in noise.patterns:
            name = re.sub(r"\[(.).*?\]|[?*]", lambda wildcard: wildcard[1] or "1", pattern)
            matching = {
                other.partition
                for other in sources.NOISES
                if other.package == noise.package and any(Path(name).match(its) for its in other.patterns)
            }
            assert matching == {noise.partition}, pattern


def test_fetch_completes_a_package_that_lacks_its_noises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An older fetch took the voices only, and deleted the archive."""
    voices = sources.Source(
        "game-data", "games/game/voice", "*.ogg", "s", "f", "en", "CC0-1.0", "Someone", archive="games/game/game.zip"
    )
    monkeypatch.setattr(sources, "SOURCES", (voices,))
    monkeypatch.setattr(sources, "NOISES", NOISES)
    monkeypatch.setattr(sources, "require_program", lambda program, package: program)
    calls = []

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        calls.append(command[0])
        if command[0] == "apt-get":
            (tmp_path / "game-data_1_all.deb").touch()
        else:
            folder = Path(command[3]) / "usr/share/games/game"
            folder.mkdir(parents=True)
            with zipfile.ZipFile(folder / "game.zip", "w") as archive:
                for name in ("voice/a.ogg", "sound/wind.ogg", "art/big.png"):
                    archive.writestr(name, name)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(sources.subprocess, "run", run)
    game = tmp_path / "game-data/usr/share/games/game"
    (game / "voice").mkdir(parents=True)
    sources.fetch(tmp_path)
    assert sorted(str(path.relative_to(game)) for path in game.rglob("*.*")) == ["sound/wind.ogg", "voice/a.ogg"]
    sources.fetch(tmp_path)
    assert calls == ["apt-get", "dpkg"]


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two responses of train and one of dev."""
    pytest.importorskip("pyroomacoustics", reason="pyroomacoustics is not installed: pip install 'nes2net_hf[corpus]'")
    out = tmp_path_factory.mktemp("surroundings")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(surroundings, "ROOMS", {"train": 2, "dev": 1})
        surroundings.write_rooms(out, seed=3)
    return out / "rooms"


def test_rooms_are_different_and_the_same_for_the_same_seed(
    rooms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def content(folder: Path) -> dict[str, bytes]:
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.flac")}

    monkeypatch.setattr(surroundings, "ROOMS", {"train": 1, "dev": 1})
    surroundings.write_rooms(tmp_path, seed=3)
    assert set(content(rooms)) == {"train/room-000.flac", "train/room-001.flac", "dev/room-000.flac"}
    assert len(set(content(rooms).values())) == 3
    assert content(tmp_path / "rooms").items() <= content(rooms).items()


def test_the_direct_sound_is_whole_and_first_and_the_echoes_decay(rooms: Path):
    for path in sorted(rooms.rglob("*.flac")):
        response = audio.read(path)
        peak = int(np.abs(response).argmax())
        assert abs(response[peak]) == pytest.approx(surroundings.RESPONSE_PEAK, abs=1e-3)
        # It travels 0.5 to 4 m, and its filter begins 40 samples before its peak.
        assert 0.5 / 343 * RATE + 38 < peak < 4 / 343 * RATE + 42
        assert np.abs(response[: peak - 25]).max() < 0.05
        quarters = [np.mean(part.astype(float) ** 2) for part in np.array_split(response[peak:], 4)]
        assert quarters == sorted(quarters, reverse=True) and quarters[3] < 1e-3 * quarters[0]


def test_sources_and_microphones_keep_their_distances():
    rng, size = np.random.default_rng(0), np.array([3.0, 8.0, 2.5])
    for _ in range(200):
        source, microphone = surroundings.place(size, rng)
        assert 0.5 <= np.linalg.norm(source - microphone) <= 4.0
        assert all(((point >= 0.5) & (point <= size - 0.5)).all() for point in (source, microphone))


def test_finished_rooms_are_kept(tmp_path: Path):
    write_sound(tmp_path / "rooms/train/room-000.flac", hiss(1.0))
    surroundings.write_rooms(tmp_path, seed=3)
    assert [path.name for path in (tmp_path / "rooms").rglob("*.flac")] == ["room-000.flac"]


def test_training_reads_the_rooms(rooms: Path):
    room = Room(root=str(rooms / "train"))
    wave = np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    wet = room(wave, np.random.default_rng(0))
    assert len(room.recordings) == 2 and wet.shape == wave.shape
    # The direct sound stays where it was.
    assert np.argmax(np.correlate(wet, wave[200:-200], "valid")) == 200
