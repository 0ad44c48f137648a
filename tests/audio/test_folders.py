"""Difficult folders: links, loops, folders that cannot be listed, pipes."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nes2net_hf.audio import list_audio
from nes2net_hf.detection import detect
from nes2net_hf.files import Found, walk_files

SAMPLE = Path(__file__).parents[2] / "src/nes2net_hf/samples/bonafide.flac"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Returns a folder of two folders, each with a recording. A third folder outside it is only reachable by links."""
    for name in ("in/b/two.flac", "in/a/one.flac", "out/deep/three.flac"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    return tmp_path / "in"


@pytest.fixture
def denied(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Makes a folder impossible to list, also for root, who ignores permissions."""
    closed: set[str] = set()
    scandir = os.scandir

    def guarded(path: str) -> Any:
        if os.path.realpath(path) in closed:
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    return lambda path: closed.add(os.path.realpath(path))


def below(root: Path) -> list[str]:
    found = list(walk_files(root))
    assert not [entry for entry in found if entry.problem]
    return [Path(entry.path).relative_to(root).as_posix() for entry in found]


def test_folders_behind_links_are_walked_once_and_after_all_others(tree: Path) -> None:
    assert below(tree) == ["a/one.flac", "b/two.flac"]
    (tree / "0").symlink_to("b")  # sorts first, but files keep their real path
    (tree / "a/first").symlink_to(tree.parent / "out")
    (tree / "second").symlink_to(tree.parent / "out/deep")
    (tree / "third").symlink_to("a/first/deep")
    assert below(tree) == ["a/one.flac", "b/two.flac", "second/three.flac"]


@pytest.mark.parametrize("target", [".", "..", "../..", "/", "loop", "../b", "missing"])
def test_loops_and_links_that_lead_nowhere_end(target: str, tree: Path) -> None:
    (tree / "a/loop").symlink_to(target)
    (tree / "b/back").symlink_to("../a/loop")
    (tree / "b/up").symlink_to(tree)
    assert [name for name in below(tree) if name.endswith(".flac")] == ["a/one.flac", "b/two.flac"]


def test_a_loop_behind_a_link_ends(tree: Path) -> None:
    (tree / "link").symlink_to(tree.parent / "out")
    (tree.parent / "out/deep/up").symlink_to(tree.parent / "out")
    (tree.parent / "out/deep/home").symlink_to(tree)
    assert below(tree) == ["a/one.flac", "b/two.flac", "link/deep/three.flac"]


def test_a_link_as_the_root_and_links_to_files(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree.parent / "root").symlink_to(tree)
    (tree / "again.flac").symlink_to("a/one.flac")  # as in caches and annexes
    assert below(tree.parent / "root") == ["again.flac", "a/one.flac", "b/two.flac"]
    monkeypatch.chdir(tree)
    assert [os.path.normpath(path) for path in list_audio(".")] == sorted(map(os.path.normpath, below(tree)))


def test_what_cannot_be_listed_is_found_with_the_reason(
    tree: Path, denied: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    denied(tree / "a")
    assert [*walk_files(tree)] == [
        Found(str(tree / "a"), f"{tree / 'a'} cannot be listed (Permission denied).", is_folder=True),
        Found(str(tree / "b/two.flac")),
    ]
    denied(tree)
    [root] = walk_files(tree)
    assert root.is_folder and root.problem == f"{tree} cannot be listed (Permission denied)."
    long = tree.parent / ("x" * 300)
    assert [entry.problem for entry in walk_files(long)] == [f"{long} cannot be listed (File name too long)."]

    listed = os.scandir(tree.parent / "out/deep")

    @contextmanager
    def failing(path: str) -> Iterator[Iterator[Any]]:
        def entries() -> Iterator[Any]:
            yield from listed
            raise OSError(5, "Input/output error")

        yield entries()

    monkeypatch.setattr(os, "scandir", failing)
    names = [(Path(path).name, problem is None) for path, problem, _ in walk_files(tree.parent / "out/deep")]
    assert names == [("three.flac", True), ("deep", False)]


@pytest.fixture
def recordings(tree: Path) -> Path:
    for path in (*tree.rglob("*.flac"), *(tree.parent / "out").rglob("*.flac")):
        shutil.copy(SAMPLE, path)
    return tree


def test_detect_judges_what_is_behind_links_and_names_what_it_cannot_read(
    recordings: Path, denied: Callable[[Path], None], nes2net: Any
) -> None:
    (recordings / "link").symlink_to(recordings.parent / "out")
    (recordings / "a/loop").symlink_to(recordings)
    (recordings / "gone.wav").symlink_to("nowhere.wav")
    (recordings / "itself.mp3").symlink_to("itself.mp3")
    (recordings / "gone.txt").symlink_to("nowhere")
    (recordings / ".hidden.wav").symlink_to("nowhere")
    os.mkfifo(recordings / "pipe.wav")
    os.mkfifo(recordings / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        place = os.getcwd()
        os.chdir(recordings)  # a socket's path must be short
        server.bind("socket.flac")
        os.chdir(place)
    denied(recordings / "b")
    results = detect(recordings)
    errors = {str(Path(one.file).relative_to(recordings)): one.error for one in results if one.error}
    assert [Path(one.file).name for one in results if not one.error] == ["one.flac", "three.flac"]
    assert set(errors) == {"b", "gone.wav", "itself.mp3", "pipe.wav", "socket.flac"}
    assert errors["b"] == f"{recordings / 'b'} cannot be listed (Permission denied)."
    assert errors["pipe.wav"] == f"{recordings / 'pipe.wav'} is a pipe, socket or device, not a file."
    assert all(reason.startswith(str(recordings / name)) for name, reason in errors.items())

    done = nes2net("detect", recordings, "--format", "jsonl")
    assert done.code == 1 and len(done.out.splitlines()) == 7
    assert {json.loads(line)["file"] for line in done.out.splitlines()} == {one.file for one in results}
    out = recordings.parent / "out.jsonl"
    for resume in ((), ("--resume",)):  # only the errors are tried again
        assert nes2net("detect", recordings, "--output", out, *resume).code == 1
    assert len(out.read_text().splitlines()) == 7


def test_a_folder_that_cannot_be_listed_is_not_one_without_audio(
    recordings: Path, denied: Callable[[Path], None]
) -> None:
    (recordings.parent / "empty").mkdir()
    [none] = detect(recordings.parent / "empty")
    assert none.error == f"{recordings.parent / 'empty'} is a folder without audio files."
    denied(recordings.parent / "empty")
    [none] = detect(recordings.parent / "empty")
    assert none.error == f"{recordings.parent / 'empty'} cannot be listed (Permission denied)."
