"""The plan of the house: imports point downward only, inside functions as well."""

from __future__ import annotations

import ast
from pathlib import Path

import simplepose

PACKAGE = Path(simplepose.__file__).parent
FLOORS = (
    ("core", "machine"),
    ("config", "data", "weights", "models", "metrics"),
    ("inference",),
    ("tracking",),
    ("training", "export", "scale"),
    ("reports",),
    ("build",),
    ("commands",),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def imports_of(path: Path) -> list[tuple[int, str]]:
    """Line and module of every import of the package's own."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "simplepose":
            found += [(node.lineno, f"simplepose.{alias.name}") for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("simplepose."):
            found.append((node.lineno, node.module))
        elif isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names if alias.name.startswith("simplepose.")]
    return found


def test_imports_point_downward():
    upward = []
    for path in sorted(PACKAGE.glob("*/**/*.py")):
        inside = path.relative_to(PACKAGE)
        for line, module in imports_of(path):
            room = module.split(".")[1]
            if FLOOR_OF[room] > FLOOR_OF[inside.parts[0]]:
                upward.append(f"{inside.as_posix()}:{line} imports {module}")
    assert not upward, "\n".join(upward)


def test_every_room_has_a_floor():
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms == set(FLOOR_OF)


def test_what_deployment_needs_never_imports_paddle_when_it_is_loaded():
    for room in ("core", "inference", "tracking"):
        for path in (PACKAGE / room).rglob("*.py"):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, (ast.Import, ast.ImportFrom)):
                    assert "paddle" not in ast.unparse(node).split(), path
