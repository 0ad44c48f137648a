"""The packages import downwards only: a room knows nothing of the rooms that stand below it in this list."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import nes2net_hf

PACKAGE = Path(nes2net_hf.__file__).parent
# From the ground up. Rooms of one floor do not import each other.
FLOORS = [
    "errors version machine configuration_nes2net feature_extraction_nes2net metrics samples cards figure_style",
    "modeling_nes2net files calibration reference scores corpus_facts",
    "audio familiarity hub auto",
    "conversion augmentation corpora",
    "pretrained",
    "detection arena trainer",
    "endpoint",
    "evaluation robustness page",
    "audit",
    "release server",
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms.split()}


def files() -> Iterator[tuple[Path, str]]:
    """Each of our files, and its room; the face of the package has none, because only users import it."""
    for path in PACKAGE.rglob("*.py"):
        top, *rest = path.relative_to(PACKAGE).parts
        if top != "models" and path != PACKAGE / "__init__.py":
            yield path, top if rest else path.stem


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and room of each import of ours in a file, wherever it stands, but not of those for types only."""
    package = ["nes2net_hf", *path.relative_to(PACKAGE).parent.parts]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    only_types = {
        inner for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node not in only_types:
            base = package[: len(package) - node.level + 1] if node.level else []
            module = [*base, *(node.module or "").split(".")] if node.module else base
            for name in node.names:
                if module[0] == "nes2net_hf":
                    yield node.lineno, [*module, name.name][1]


def test_every_room_has_its_floor() -> None:
    assert {room for _, room in files()} == set(FLOOR)


def test_no_import_runs_upwards_or_sideways() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line} imports {other}"
        for path, room in files()
        for line, other in imported(path)
        if other != room and FLOOR.get(other, len(FLOORS)) >= FLOOR[room]
    ]
    assert not wrong, "\n".join(wrong)
