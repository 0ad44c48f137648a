"""Tests that files are written whole or not at all, and by one process at a time."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nes2net_hf.errors import DiskError, OutputError
from nes2net_hf.files import atomic_file, atomic_folder, claim
from tests.helpers import LIGHT, held


@pytest.mark.parametrize("kind", ["file", "folder", "workplace"])
def test_a_claim_is_of_one_process(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    with held(out, kind) as process:
        refused = rf"out is being written by another run \(process {process.pid}\)"
        with pytest.raises(OutputError, match=refused), claim(out, kind):
            pass
        (tmp_path / "link").symlink_to("out")
        with pytest.raises(OutputError, match=f"process {process.pid}"), claim(tmp_path / "link", kind):
            pass
        (tmp_path / "link").unlink()
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(10) == 0
    assert not list(tmp_path.iterdir())  # neither the lock nor an empty folder stays
    with claim(out, kind):
        pass


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    with held(tmp_path / "out") as process:
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        assert (tmp_path / ".out.lock").exists()
        with claim(tmp_path / "out"), claim(tmp_path / "out"):  # the same process may claim twice
            pass
    assert not list(tmp_path.iterdir())


def test_a_forked_worker_does_not_keep_the_lock(tmp_path: Path) -> None:
    """A loader's workers outlive a killed run by seconds."""
    code = (
        LIGHT
        + """
import multiprocessing, os, signal, sys, time
from nes2net_hf.files import claim
with claim(sys.argv[1]):
    worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(30,))
    worker.start()
    print(worker.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    )
    if not hasattr(os, "fork"):
        pytest.skip("no fork here")
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "out")], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        process.wait(10)
        try:
            with claim(tmp_path / "out"):
                os.kill(worker, 0)  # it is alive
        finally:
            os.kill(worker, signal.SIGKILL)


def test_many_claims_one_at_a_time(tmp_path: Path) -> None:
    """Two processes never have the lock at the same time, although its file is often created and removed."""
    code = (
        LIGHT
        + """
import os, sys, time
from nes2net_hf.errors import OutputError
from nes2net_hf.files import claim
out, end, had = sys.argv[1], time.monotonic() + 1.0, 0
while time.monotonic() < end:
    try:
        with claim(out):
            os.close(os.open(out + ".alone", os.O_CREAT | os.O_EXCL))
            os.unlink(out + ".alone")
            had += 1
    except OutputError:
        pass
print(had)
"""
    )
    commands = [[sys.executable, "-c", code, str(tmp_path / "out")] for _ in range(3)]
    processes = [subprocess.Popen(one, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for one in commands]
    said = [process.communicate(timeout=60) for process in processes]
    assert [error for _, error in said] == ["", "", ""]
    assert sum(int(had) for had, _ in said) > 10
    assert not list(tmp_path.iterdir())


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    out.write_text("old", encoding="utf-8")
    out.chmod(0o640)
    with pytest.raises(KeyError), atomic_file(out) as file:
        file.write("half")
        raise KeyError
    assert out.read_text(encoding="utf-8") == "old"
    with atomic_file(out) as file:
        file.write("neu ü")
    assert out.read_text(encoding="utf-8") == "neu ü" and out.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [out]


def test_a_folder_is_whole_or_as_it_was(tmp_path: Path) -> None:
    out = tmp_path / "model"
    for name in ("a", "b"):
        with atomic_folder(out) as folder:
            (folder / name).write_text(name, encoding="utf-8")
            assert (tmp_path / "model" / "a").exists() == (name == "b")
    with pytest.raises(KeyError), atomic_folder(out) as folder:
        (folder / "c").write_text("", encoding="utf-8")
        raise KeyError
    assert [file.name for file in out.iterdir()] == ["b"]
    assert list(tmp_path.iterdir()) == [out]


def test_remains_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".model.part").mkdir()
    (tmp_path / ".model.part" / "half").touch()
    (tmp_path / ".model.old").mkdir()
    (tmp_path / ".model.old" / "whole").touch()
    with pytest.raises(KeyError), atomic_folder(tmp_path / "model"):
        raise KeyError  # after a kill between two moves, the old folder is back
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "whole"]


@pytest.mark.parametrize(
    ("number", "kind", "reason"),
    [
        (errno.ENOSPC, DiskError, "the disk is full"),
        (errno.EDQUOT, DiskError, "the disk quota is used up"),
        (errno.EROFS, OutputError, "the disk is read-only"),
        (errno.EACCES, OutputError, "no permission"),
    ],
)
def test_why_a_file_cannot_be_written(tmp_path: Path, number: int, kind: type[Exception], reason: str) -> None:
    out = tmp_path / "out"
    for write in (atomic_file, atomic_folder):
        with pytest.raises(kind, match=rf"^{out} cannot be written: {reason}\.$"), write(out):
            raise OSError(number, os.strerror(number))
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("absent/out.txt", "its folder does not exist"),
        ("file/out.txt", "part of its path is not a folder"),
        (".", "it is a folder"),
        ("n" * 300, "its name is too long"),
    ],
)
def test_an_impossible_file_is_refused_before_the_work(tmp_path: Path, path: str, reason: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=f"cannot be written: {reason}"), claim(tmp_path / path):
        pytest.fail("the work started")


def test_another_files_error_stays_its_own(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"), atomic_file(tmp_path / "out"):
        (tmp_path / "absent").read_bytes()


def test_a_device_is_written_directly(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    full = pytest.raises(DiskError, match=r"^/dev/full cannot be written: the disk is full")
    with full, atomic_file("/dev/full") as file:
        file.write("x")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_text(encoding="utf-8")))
    reader.start()
    with atomic_file(pipe) as file:
        file.write("through")
    reader.join()
    assert got == ["through"] and pipe.is_fifo()
