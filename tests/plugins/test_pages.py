"""The code of the how-to pages is that of the packages beside this file, which other tests install."""

from __future__ import annotations

import re

import pytest

from tests.docs.documents import DOCUMENTS, name
from tests.plugins.conftest import FOLDER, PACKAGES

PAGES = [document for document in DOCUMENTS if document.parent.name == "how-to"]
FILE = re.compile(r"^```\w+ (\S+/\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_files_of_a_page_are_those_of_its_package(page):
    shown = dict(FILE.findall(page.read_text(encoding="utf-8")))
    packages = {path.split("/")[0] for path in shown}
    assert len(packages) == 1 and packages <= set(PACKAGES)
    (package,) = packages
    files = {
        str(path.relative_to(FOLDER)): path.read_text(encoding="utf-8")
        for path in (FOLDER / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert shown == files


def test_every_package_has_a_page():
    shown = {
        path.split("/")[0] for page in PAGES for path, _ in FILE.findall(page.read_text(encoding="utf-8"))
    }
    assert shown == set(PACKAGES)
