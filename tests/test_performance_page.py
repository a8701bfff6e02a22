"""docs/performance.md says what the script for a GPU does, and shows the figures of every card that was measured."""

from __future__ import annotations

import json
import re
from pathlib import Path

from benchmarks.gpu.document import figures_table
from benchmarks.gpu.plan import NO_PEER, ROWS, SECTIONS
from benchmarks.results import Results

from benchmarks.peers import report as peers

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "performance.md").read_text()
MEASURED = sorted((ROOT / "benchmarks" / "results").glob("gpu-*.json"))


def test_every_row_is_there_with_the_sections_that_measure_it() -> None:
    told = dict(re.findall(r"^\| (G\d+) \|.*\| ([^|]+) \|$", PAGE, re.MULTILINE))
    assert tuple(told) == ROWS
    for row, where in told.items():
        sections = [section.name for section in SECTIONS if row in section.rows]
        assert set(re.findall(r"`([\w-]+)`", where)) == set(sections), row
        assert (sections == []) == (row in NO_PEER), row


def test_every_section_is_there() -> None:
    for section in SECTIONS:
        assert f"`{section.name}`" in PAGE, section.name


def test_the_figures_are_those_of_the_results() -> None:
    assert ("No figure from a GPU exists yet" in PAGE) == (not MEASURED)
    for path in MEASURED:
        content = json.loads(path.read_text())
        assert content["card"] in PAGE
        assert f"```\n{figures_table(content)}\n```" in PAGE


def test_the_figures_beside_other_servers_are_those_of_the_results() -> None:
    assert f"```\n{peers.summary(Results('peers').cells())}\n```" in PAGE


def test_its_files_and_commands_exist() -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", PAGE):
        assert (ROOT / "docs" / link).exists(), link
    for target in {"gpu", *re.findall(r"`make ([\w-]+)`", PAGE)}:
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target
