# SPDX-License-Identifier: MIT
"""Rules of the house that no linter knows: the error tree as drawn, links that lead somewhere, files in their places."""

import ast
import importlib
import os
import pkgutil
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

import yester
from yester import errors

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "src").rglob("*.py"))
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
TEST_FOLDERS = {"model", "mount", "faults", "formats", "powerloss"}
"""Folders of tests/ that are about a way of testing instead of a package."""


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_error_tree_is_as_drawn() -> None:
    for module in pkgutil.walk_packages(yester.__path__, "yester."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    assert _drawn_parents(errors.__doc__ or "") == _real_parents(errors.YesterError)


def _drawn_parents(text: str) -> dict[str, str]:
    """Each drawn name and the one it hangs from, which is the last before it that stands further left."""
    above: list[tuple[int, str]] = []
    parents = {}
    for line in text.splitlines():
        if match := re.match(r"[ │├└─]{4,}(\w+Error)\b", line):
            column = match.start(1)
            above = [(left, name) for left, name in above if left < column]
            if above:
                parents[match[1]] = above[-1][1]
            above.append((column, match[1]))
    return parents


def _real_parents(parent: type[Exception]) -> dict[str, str]:
    """All classes of yester below one, each with its parent; those of other modules too, so that none hides there."""
    parents = {}
    for child in parent.__subclasses__():
        if child.__module__.startswith("yester"):
            parents[child.__name__] = parent.__name__
            parents |= _real_parents(child)
    return parents


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_a_module_names_its_license_and_says_what_it_is_for(path: Path) -> None:
    text = path.read_text()
    assert "# SPDX-License-Identifier: MIT\n" in text.splitlines(keepends=True)[:2]
    assert ast.get_docstring(ast.parse(text))


def test_what_is_to_do_has_an_issue() -> None:
    files = [*SOURCES, *DOCUMENTS, *(ROOT / "tests").rglob("*.py"), *_scripts()]
    found = [
        f"{_name(path)}:{number}: {line.strip()}"
        for path in files
        if path != Path(__file__)
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if re.search(r"\b(TODO|FIXME|XXX)\b(?!\(#\d+\))", line)
    ]
    assert not found


def test_a_folder_of_tests_mirrors_a_package() -> None:
    packages = {path.parent.name for path in SOURCES if path.name == "__init__.py" and path.parent.parent.name == "yester"}
    folders = {path.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").rglob("test_*.py") if path.parent != ROOT / "tests"}
    assert folders <= packages | TEST_FOLDERS


def test_the_map_of_modules_is_whole() -> None:
    modules = {str(path.relative_to(ROOT / "src/yester").with_suffix("")) for path in SOURCES if not path.name.startswith("__")}
    mapped = _mapped_modules((ROOT / "docs/ARCHITECTURE.md").read_text())
    assert {name for name in modules if "/" in name and not name.startswith("cli/command_")} == mapped


def _mapped_modules(text: str) -> set[str]:
    """What the first column of the table of modules names; a package stands only before the first name of a row."""
    found = set()
    for line in text.partition("## Modules")[2].partition("\n## ")[0].splitlines():
        package = ""
        for name in re.findall(r"`([a-z_/]+)`", line.split("|")[1] if line.startswith("|") else ""):
            package = name.partition("/")[0] if "/" in name else package
            found.add(name if "/" in name else f"{package}/{name}")
    return found


def test_ids_of_chunks_are_asked_of_the_store() -> None:
    """In an encrypted store they are others than in a plain one: who computes them himself finds nothing there."""
    allowed = {"core/ids.py", "store/lmdb.py"}
    found = [_name(path) for path in SOURCES if str(path.relative_to(ROOT / "src/yester")) not in allowed and _imports_chunk_id(path)]
    assert not found


def _imports_chunk_id(path: Path) -> bool:
    imports = [
        node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom) and node.module == "yester.core.ids"
    ]
    return any(alias.name == "chunk_id" for node in imports for alias in node.names)


def _scripts() -> list[Path]:
    return [path for folder in ("scripts", ".ci") for path in sorted((ROOT / folder).glob("*")) if path.is_file()]


@pytest.mark.parametrize("path", _scripts(), ids=_name)
def test_a_script_can_be_run(path: Path) -> None:
    assert os.access(path, os.X_OK)
    assert path.read_text().startswith("#!/usr/bin/env ")


@pytest.mark.parametrize("path", [path for path in _scripts() if "bash" in path.read_text().partition("\n")[0]], ids=_name)
def test_bash_can_parse_a_script(path: Path) -> None:
    subprocess.run(["bash", "-n", path], check=True)


class Link(NamedTuple):
    """A link of a document. `heading` is the part after `#`."""

    target: str
    heading: str


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_links_of_a_document_lead_somewhere(path: Path) -> None:
    broken = []
    for link in _links(path.read_text()):
        target = path.parent / link.target if link.target else path
        if not target.exists() or (link.heading and target.suffix == ".md" and link.heading not in _headings(target.read_text())):
            broken.append(link)
    assert not broken


def _links(text: str) -> list[Link]:
    """Relative links, inline (`[text](target)`) or as references (`[label]: target`), outside code."""
    text = _without_code(text)
    targets = re.findall(r"\]\(<?([^)>\s]+)>?[^)]*\)", text) + re.findall(r"^\[[^\]]+\]:\s+<?(\S+?)>?(?:\s|$)", text, re.MULTILINE)
    return [Link(*target.partition("#")[::2]) for target in targets if not re.match(r"[a-z]+:|//", target)]


def _headings(text: str) -> set[str]:
    """The anchors that a document's headings get on the usual forges."""
    titles = re.findall(r"^#+\s+(.+?)\s*#*$", _without_code(text, inline=False), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def _without_code(text: str, *, inline: bool = True) -> str:
    text = re.sub(r"^(```+|~~~+).*?^\1", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]+`", "", text) if inline else text


def test_broken_links_are_found() -> None:
    text = '# A *b* c!\n[x](docs/a.md#one) `[no](code.md)` [web](https://x.org/a) ![p](p.png "t")\n```\n[no](block.md)\n```\n[r]: b.md\n'
    assert _links(text) == [Link("docs/a.md", "one"), Link("p.png", ""), Link("b.md", "")]
    assert _headings(text) == {"a-b-c"}
