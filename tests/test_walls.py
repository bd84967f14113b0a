"""The walls of the house, read from the import statements of every file, functions included."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "ealign_plugin"
FILES = sorted(PACKAGE.rglob("*.py"))

# Room -> the rooms below it that it may import. A room may always import itself.
BELOW = {
    "errors": set(),
    "news": {"errors"},
    "entities": {"news", "errors"},
    "alignment": {"entities", "news", "errors"},
    "evaluation": {"alignment", "entities", "news", "errors"},
    "shards": {"alignment", "entities", "news", "errors"},
    "micronews": {"shards", "alignment", "entities", "news", "errors"},
    "host": {"errors"},
    "models": {"host", "errors"},
    "inference": {"alignment", "entities", "news", "errors"},
    "journal": {"shards", "errors"},
    "checkpoints": {"shards", "host", "errors"},
    "parallel": {"errors"},
}
# The registered classes and the command line are the top floor: they may import every room below.
TOP = {"builders", "processors", "task", "runner", "schedules", "captioner", "cli"}

WITHOUT_LAVIS = {"errors", "news", "entities", "alignment", "shards", "micronews", "evaluation", "inference"}
WITHOUT_TORCH = {"errors", "news", "alignment", "evaluation"}


def room_of(file: Path) -> str:
    """'alignment' for alignment/context.py, 'news' for news.py, '' for the package's __init__.py."""
    first = file.relative_to(PACKAGE).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def imports(file: Path) -> set[str]:
    """Dotted names of everything the file imports, relative imports spelled out."""
    found = set()
    package = (PACKAGE.name, *file.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join([*base, *([node.module] if node.module else [])])
            # `from ealign_plugin import news` names a room by its alias.
            found |= (
                {f"{origin}.{alias.name}" for alias in node.names} if origin == PACKAGE.name else {origin}
            )
    return found


def rooms_imported(file: Path) -> set[str]:
    ours = {name.split(".")[1] for name in imports(file) if name.startswith(PACKAGE.name + ".")}
    return ours - {room_of(file)}


def name(file: Path) -> str:
    return str(file.relative_to(PACKAGE))


def test_every_file_is_in_a_known_room():
    assert {room_of(file) for file in FILES} <= {"", *BELOW, *TOP}


@pytest.mark.parametrize("file", FILES, ids=name)
def test_arrows_run_one_way(file):
    room = room_of(file)
    allowed = {"": {"host", "captioner"}, **BELOW}.get(room, {*BELOW, *TOP})
    assert rooms_imported(file) <= allowed


def test_the_allowed_arrows_make_no_circle():
    done: list[str] = []
    while left := [room for room in BELOW if room not in done]:
        ready = [room for room in left if BELOW[room] <= set(done)]
        assert ready, f"a circle among {left}"
        done += ready


@pytest.mark.parametrize("file", FILES, ids=name)
def test_lavis_and_torch_stay_in_their_rooms(file):
    roots = {imported.split(".")[0] for imported in imports(file)}
    if room_of(file) in WITHOUT_LAVIS:
        assert "lavis" not in roots
    if room_of(file) in WITHOUT_TORCH:
        assert not roots & {"torch", "torchvision", "transformers"}


@pytest.mark.parametrize("file", [file for file in FILES if room_of(file) in TOP], ids=name)
def test_the_top_floor_has_no_circle_of_modules(file):
    """Of two registered modules at most one imports the other."""
    for other in rooms_imported(file) & TOP:
        back = [second for second in FILES if room_of(second) == other]
        assert all(room_of(file) not in rooms_imported(second) for second in back)


def test_the_method_alone_does_not_load_lavis(run_python):
    rooms = [f"ealign_plugin.{room}" for room in sorted(WITHOUT_LAVIS)]
    done = run_python("-c", f"import sys, {', '.join(rooms)}; print('lavis' in sys.modules)")
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
