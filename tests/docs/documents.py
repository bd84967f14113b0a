"""The documents of the checkout, and what stands in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def name(document: Path) -> str:
    """Path below the checkout."""
    return str(document.relative_to(ROOT))


def blocks(document: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return [code for found, code in FENCE.findall(document.read_text(encoding="utf-8")) if found == language]


def code_spans(document: Path) -> Iterator[str]:
    """The lines of shell blocks, without comments, and what stands between single backticks elsewhere."""
    for block in blocks(document, "bash"):
        yield from (line.split(" #")[0].strip() for line in block.splitlines() if not line.startswith("#"))
    yield from re.findall(r"`([^`\n]+)`", FENCE.sub("", document.read_text(encoding="utf-8")))


def links(document: Path) -> list[str]:
    """Targets of links and pictures outside of code."""
    text = re.sub(r"`[^`\n]+`(?!\])", "", FENCE.sub("", document.read_text(encoding="utf-8")))
    return re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)


def anchors(document: Path) -> set[str]:
    """The anchors of the headings, as they are made on GitHub."""
    text = FENCE.sub("", document.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
