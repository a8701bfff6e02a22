"""docs/reliability.md claims no test that is not there and no round that was not run."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
TOTALS = ROOT / "tests/faults/totals.json"
ROUNDS_OF_EVERY_TEST_RUN = 1


def rows() -> list[tuple[str, int]]:
    """(test, rounds) of each line of the table of faults."""
    page = (ROOT / "docs/reliability.md").read_text()
    table = page[page.index("## Faults") :]
    cells = [[cell.strip() for cell in line.split("|")] for line in table.splitlines() if "::test_" in line]
    return [(cell[5].strip("`"), int(cell[6])) for cell in cells]


def test_every_test_of_the_page_exists() -> None:
    assert rows()
    for test, _ in rows():
        file, _, name = test.partition("::")
        found = [path.read_text() for path in ROOT.glob(f"tests/**/{file}")]
        assert any(re.search(rf"^(async )?def {re.escape(name)}\b", text, re.MULTILINE) for text in found), test


def test_no_row_claims_more_rounds_than_were_counted() -> None:
    counted = json.loads(TOTALS.read_text())["tests"] if TOTALS.exists() else {}
    for test, claimed in rows():
        passed = sum(len(entry["passed"]) for name, entry in counted.items() if name.partition("[")[0] == test)
        assert claimed <= max(passed, ROUNDS_OF_EVERY_TEST_RUN), test
