"""The worst patterns of English that native readers stumble over do not come back."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OPENINGS = re.compile(r"(Of|That|Those|What|Whoever|Whatever|For|With|Which|How|Where|Whether|From)\b")
"""A sentence that begins so has no subject that a reader knows yet."""
PROPHECY = re.compile(r"\b(is|are|was|were) to be\b")
"""Write "must be"."""
BRITISH = re.compile("(neighb|col)" + "our", re.IGNORECASE)
"""The API says neighbor and color, and so does everything else."""
COUNTED = re.compile(r" (?:[a-z-]+ )?([a-z]{2,}s)\b")
NOT_COUNTED = frozenset({"bytes", "pixels", "parameters", "has", "is", "was", "less"})
"""Words after a count that are no plural, or whose count is never 1."""
BEFORE_MANY = re.compile(r"\b(of|of the|first|the first) $")
ROOMS = ("client", "server", "proto", "examples", "benchmarks", "container", "tests")
SHOWN = ("README.md", "CONTRIBUTING.md", "Makefile", "docs", *ROOMS)
THIS = "tests/test_prose.py"
"""This file holds the patterns themselves."""


def tracked(*folders: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", *folders], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.splitlines()]


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Docstrings, and the notes below constants and fields, with their lines."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else []:
            match statement:
                case ast.Expr(value=ast.Constant(value=str(text)), lineno=line):
                    yield line, text.strip()


def awkward_openings(source: str) -> list[int]:
    return [line for line, text in docstrings(ast.parse(source)) if OPENINGS.match(text)]


@pytest.mark.parametrize("folder", ROOMS)
def test_no_docstring_begins_in_the_middle_of_a_thought(folder: str) -> None:
    found = {}
    for path in tracked(folder):
        if path.suffix == ".py" and path.parent.name != "v1":
            lines = awkward_openings(path.read_text())
            if lines:
                found[path.relative_to(ROOT).as_posix()] = lines
    assert found == {}


def test_no_text_says_is_to_be() -> None:
    found = []
    for path in tracked(*SHOWN):
        if path.suffix in (".py", ".md", ".proto", ".toml", "") and path.parent.name != "v1":
            for number, line in enumerate(path.read_text().splitlines(), 1):
                if PROPHECY.search(line) and path != ROOT / THIS:
                    found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert found == []


def test_neighbor_and_color_are_spelled_in_one_way() -> None:
    found = [path.name for path in tracked() if BRITISH.search(path.name)]
    for path in tracked():
        if path.suffix in (".py", ".md", ".proto", ".toml", ".yml", "") and path.parent.name != "v1":
            found += [f"{path.relative_to(ROOT)}: {word}" for word in BRITISH.findall(path.read_text())]
    assert found == []


def fixed_plurals(source: str) -> list[tuple[int, str]]:
    """Plurals in f-strings that follow a count whatever it is, with their lines."""
    found, tree = [], ast.parse(source)
    chosen = {id(text) for node in ast.walk(tree) if isinstance(node, ast.IfExp) for text in (node.body, node.orelse)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.JoinedStr) or id(node) in chosen:
            continue
        texts = [part.value if isinstance(part, ast.Constant) else part for part in node.values]
        for before, count, after in zip(["", *texts], texts, texts[1:], strict=False):
            if isinstance(count, ast.FormattedValue) and is_count(count.value) and isinstance(after, str):
                noun = COUNTED.match(after)
                is_part = isinstance(before, str) and BEFORE_MANY.search(before)
                if noun and noun[1] not in NOT_COUNTED and not is_part:
                    found.append((node.lineno, noun[1]))
    return found


def is_count(value: ast.expr) -> bool:
    match value:
        case ast.Call(func=ast.Name(id="len")):
            return True
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name.lstrip("_").startswith("num_") or name in ("count", "total")
    return False


@pytest.mark.parametrize("folder", ["client", "server"])
def test_a_noun_is_singular_after_one(folder: str) -> None:
    found = {}
    for path in tracked(folder):
        if path.suffix == ".py" and not {"v1", "learn", "image_header"} & set(path.parts):
            plurals = fixed_plurals(path.read_text())
            if plurals:
                found[path.relative_to(ROOT).as_posix()] = plurals
    assert found == {}, "use number_of"


def test_the_patterns_are_found_where_they_are() -> None:
    source = '"""Of a column."""\nX = 1\n"""That is told."""\ndef f():\n    """Return it."""\n'
    assert awkward_openings(source) == [1, 3]
    assert PROPHECY.search("the header is to be first")
    assert not PROPHECY.search("the header must be first")
    assert BRITISH.search("Neighb" + "ourhood")
    fixed = 'f"{len(rows)} images and {job.num_steps:,} full steps of {num_bytes} bytes, the first {len(rows)} rows"'
    assert fixed_plurals(fixed) == [(1, "images"), (1, "steps")]
