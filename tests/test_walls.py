"""The walls of the house, read from every file: imports at the top, inside functions, and by string."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "ealign_plugin"
FILES = sorted(PACKAGE.rglob("*.py"))

# The floors, the lowest first. A room may import itself and the rooms of lower floors; on the ground floor
# and the top floor also those named before it. "" is the package's __init__.py.
GROUND = ("errors", "news", "validation", "registry", "files", "images", "distributed", "entities")
TOP = ("cli", "startup", "")
FLOORS: tuple[tuple[str, ...], ...] = (
    GROUND,
    ("alignment", "metrics", "host"),
    ("data", "models"),
    ("micronews", "training"),
    ("inference",),
    ("registered",),
    ("ladder",),
    TOP,
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
ROOMS = {path.name.removesuffix(".py") for path in PACKAGE.iterdir()}
MAY_IMPORT_LAVIS = {"host", "registered", "startup"}
WITHOUT_TORCH = {
    "errors",
    "news",
    "validation",
    "registry",
    "files",
    "images",
    "entities",
    "alignment",
    "metrics",
}
HEAVY = {"torch", "torchvision", "transformers", "lavis"}


def room_of(file: Path) -> str:
    """'alignment' for alignment/contexts.py, 'news' for news.py, '' for the package's __init__.py.

    The start-up hook is a program of its own, which site-packages holds a copy of; nothing stands above it.
    """
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return "" if parts == ("__init__",) else room_named(parts)


def room_named(parts: Sequence[str]) -> str:
    """The room of a file or module, by its names below the package."""
    return "startup" if tuple(parts[:2]) == ("host", "startup") else parts[0]


def imported_names(source: str, package: tuple[str, ...]) -> Iterator[str]:
    """Dotted names of everything that a file imports, by statement or by string, wherever it stands in it.

    A string counts where it is an argument of a call and names a module of the package; in an f-string
    ``{__name__}`` and ``{__package__}`` stand for the package of the file.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join([*base, *([node.module] if node.module else [])])
            # `from ealign_plugin import news` names a room by its alias, anything else the package itself.
            if origin == PACKAGE.name:
                for alias in node.names:
                    yield f"{origin}.{alias.name}" if alias.name in ROOMS else origin
            else:
                yield origin
        elif isinstance(node, ast.Call):
            for argument in node.args:
                for text in strings_of(argument, ".".join(package)):
                    if re.fullmatch(rf"{PACKAGE.name}(\.\w+)+", text):
                        yield text


def strings_of(node: ast.expr, package: str) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(
            str(part.value)
            if isinstance(part, ast.Constant)
            else package
            if isinstance(part, ast.FormattedValue)
            and isinstance(part.value, ast.Name)
            and part.value.id in ("__name__", "__package__")
            else "x"
            for part in node.values
        )


def imports(file: Path) -> set[str]:
    package = (PACKAGE.name, *file.relative_to(PACKAGE).parent.parts)
    return set(imported_names(file.read_text(encoding="utf-8"), package))


def rooms_imported(file: Path) -> set[str]:
    return rooms_of(imports(file)) - {room_of(file)}


def rooms_of(names: Iterable[str]) -> set[str]:
    """The rooms among dotted names; "" stands for the package itself."""
    ours = (name.split(".")[1:] for name in names if name.split(".")[0] == PACKAGE.name)
    return {room_named(parts) if parts else "" for parts in ours}


def upward(room: str, imported: set[str]) -> set[str]:
    """The rooms among the imported ones that this room may not import."""
    for floor in (GROUND, TOP):
        if room in floor:
            imported = imported - set(floor[: floor.index(room)])
    return {other for other in imported if FLOOR.get(other, 99) >= FLOOR[room]}


def name(file: Path) -> str:
    return str(file.relative_to(PACKAGE))


def test_every_file_is_in_a_known_room():
    assert {room_of(file) for file in FILES} <= set(FLOOR)


def test_there_are_at_most_eight_floors():
    assert len(FLOORS) <= 8


@pytest.mark.parametrize("file", FILES, ids=name)
def test_arrows_run_one_way(file):
    assert not upward(room_of(file), rooms_imported(file))


@pytest.mark.parametrize(
    "source",
    [
        "from ealign_plugin.cli.train import main",
        "def f():\n    from ealign_plugin.cli import train",
        "import ealign_plugin.cli.train as t",
        "from ..cli import train",
        "import_module('ealign_plugin.cli.train')",
        "def f():\n    return importlib.import_module('ealign_plugin.cli.dry_run').dry_run(1)",
        "__import__('ealign_plugin.cli')",
    ],
)
def test_an_arrow_upwards_is_found_in_every_form(source):
    package = (PACKAGE.name, "data")
    assert upward("data", rooms_of(imported_names(source, package))) == {"cli"}


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("errors", "from ealign_plugin import files"),  # on the ground floor, named later
        ("host", "from ealign_plugin.host.startup import ealign_startup"),  # the hook stands at the top
        ("host", "from ealign_plugin.metrics import captions"),  # the same floor
        ("cli", "from ealign_plugin.host.startup.ealign_startup import install"),
        ("registered", "import ealign_plugin"),  # the package's __init__ is the roof
        ("models", "from ealign_plugin.attic import box"),  # no such room
    ],
)
def test_an_arrow_upwards_is_found_from_every_floor(room, source):
    assert upward(room, rooms_of(imported_names(source, (PACKAGE.name, room))))


@pytest.mark.parametrize("file", FILES, ids=name)
def test_lavis_and_torch_stay_in_their_rooms(file):
    roots = {imported.split(".")[0] for imported in imports(file)}
    if room_of(file) not in MAY_IMPORT_LAVIS:
        assert "lavis" not in roots
    if room_of(file) in WITHOUT_TORCH:
        assert not roots & HEAVY


def modules_imported_at_once(file: Path) -> set[str]:
    """Modules of ours that importing this one imports: statements outside of functions and TYPE_CHECKING."""
    found: set[str] = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(PACKAGE.name):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith(PACKAGE.name)}
    return found


def test_no_two_modules_import_each_other():
    modules = {
        ".".join((PACKAGE.name, *file.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
            ".__init__"
        ): file
        for file in FILES
    }
    arrows = {
        module: modules_imported_at_once(file) & set(modules) - {module} for module, file in modules.items()
    }
    done: set[str] = set()
    while left := [module for module in arrows if module not in done]:
        ready = [module for module in left if arrows[module] <= done]
        assert ready, f"a circle among {left}"
        done |= set(ready)


LONG: dict[str, str] = {}
"""Files above 400 lines, and why."""


@pytest.mark.parametrize("file", FILES, ids=name)
def test_files_are_short(file):
    lines = len(file.read_text(encoding="utf-8").splitlines())
    assert lines <= 400 or name(file) in LONG


def test_the_method_alone_does_not_load_lavis(run_python):
    rooms = [room for room in FLOOR if room not in {*MAY_IMPORT_LAVIS, "ladder", "cli", ""}]
    code = (
        f"import sys, {', '.join(f'ealign_plugin.{room}' for room in rooms)}; print('lavis' in sys.modules)"
    )
    done = run_python("-c", code)
    assert done.stdout.strip() == "False", done.stderr


def test_the_start_up_hook_needs_only_the_standard_library_to_start():
    hook = PACKAGE / "host" / "startup" / "ealign_startup.py"
    at_import = {
        alias.name
        for node in ast.parse(hook.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert at_import <= set(sys.stdlib_module_names)
