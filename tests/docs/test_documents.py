"""What the documents name exists: files, headings, commands, options, modules."""

from __future__ import annotations

import ast
import importlib
import io
import re
from contextlib import redirect_stdout
from functools import cache

import pytest
import typer

from ealign_plugin.cli.app import app
from ealign_plugin.cli.command_line import command_of, parse
from tests.docs.documents import DOCUMENTS, ROOT, anchors, blocks, code_spans, links, name

COMMANDS = typer.main.get_command(app).commands
EACH = pytest.mark.parametrize("document", DOCUMENTS, ids=name)


@cache
def options_of(command: str) -> set[str]:
    """The options of a command of ``ealign``; train and evaluate have a parser of their own."""
    known = {option for parameter in COMMANDS[command].params for option in parameter.opts} | {"--help"}
    if command in ("train", "evaluate"):
        printed = io.StringIO()
        with redirect_stdout(printed), pytest.raises(SystemExit):
            parse(command_of(f"lavis.{command}"), ["--help"])
        known |= set(re.findall(r"--[a-z][\w-]+", printed.getvalue()))
    return known


@EACH
def test_relative_links_lead_to_files_and_headings(document):
    for link in links(document):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@EACH
def test_commands_of_ealign_exist_with_their_options(document):
    for span in code_spans(document):
        for command, arguments in re.findall(r"(?:^|/)ealign ([a-z][\w-]*)(.*)$", span):
            assert command in COMMANDS, span
            known = options_of(command)
            assert set(re.findall(r"(?<!\S)--[\w-]+", arguments)) <= known, span


@EACH
def test_targets_of_make_and_scripts_exist(document):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for span in code_spans(document):
        for target in re.findall(r"^make ([a-z][\w-]*)", span):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), span
        for path in re.findall(r"\b(?:projects|docs|tests|ealign_plugin)/[\w./-]*\w", span):
            assert (ROOT / path).exists(), span


@EACH
def test_code_in_python_can_be_read_and_imports_what_exists(document):
    for code in blocks(document, "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("ealign_plugin"):
                module = importlib.import_module(node.module)
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{node.module}.{alias.name}"


def test_the_front_page_is_short():
    words = (ROOT / "README.md").read_text(encoding="utf-8").split()
    assert len(words) <= 1200


def test_the_index_names_every_page():
    index = ROOT / "docs" / "README.md"
    pages = {str(page.relative_to(index.parent)) for page in index.parent.rglob("*.md")} - {"README.md"}
    assert pages <= {link.partition("#")[0] for link in links(index)}


def test_the_makefile_lists_its_commands(root):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    head = makefile.split("\n\n")[0]
    listed = set(re.findall(r"^# make ([\w-]+)", head, re.MULTILINE))
    targets = set(re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)[1].split())
    assert listed == targets
