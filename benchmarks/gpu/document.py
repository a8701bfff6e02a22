"""The results of a run, as JSON that is replaced whole after each section, and as tables for people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.results import table

Cell = dict[str, Any]


class Document:
    """The results of one run, in one file.

    `head` describes the machine and its versions. With `resume` the sections of an earlier, unfinished run on the
    same machine are kept.
    """

    def __init__(self, path: Path, head: Cell, *, resume: bool = False) -> None:
        self.path = path
        self.content: Cell = {**head, "sections": []}
        if resume and path.exists():
            earlier = json.loads(path.read_text())
            if any(earlier.get(name) != head.get(name) for name in ("card", "torch", "quick")):
                raise ValueError(
                    f"{path} holds the results of another machine or version; give another file with --out"
                )
            self.content["sections"] = [each for each in earlier["sections"] if each["status"] == "ok"]

    @property
    def sections(self) -> list[Cell]:
        """The records of sections, in the order in which they ran."""
        found: list[Cell] = self.content["sections"]
        return found

    def holds(self, name: str) -> bool:
        """Return whether there is a record of this section."""
        return any(each["section"] == name for each in self.sections)

    def add(self, record: Cell) -> None:
        """Append a section's record and write the file."""
        self.sections.append(record)
        self.save()

    def save(self) -> None:
        """Replace the file whole, so that a run that is killed leaves the last whole state."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.content, indent=1) + "\n")
        temporary.replace(self.path)


def sections_table(content: Cell) -> str:
    """Return a table of each section with its outcome."""
    rows = [["section", "outcome", "seconds", "checks", "figures", "reason"]]
    for each in content["sections"]:
        checks = each["checks"]
        passed = f"{sum(check['ok'] for check in checks)}/{len(checks)}" if checks else ""
        figures = str(len(each["figures"]) or "")
        reason = each["reason"].splitlines()[-1][:100] if each["reason"] else ""
        rows.append([each["section"], each["status"], f"{each['seconds']:.1f}", passed, figures, reason])
    return table(rows)


def figures_table(content: Cell) -> str:
    """Return a table of each figure with the row that it belongs to."""
    rows = [["row", "what", "value", "conditions"]]
    figures = [figure for each in content["sections"] for figure in each["figures"]]
    for figure in sorted(figures, key=lambda figure: _row_number(figure["row"])):
        conditions = ", ".join(f"{name} {value}" for name, value in figure["conditions"].items())
        rows.append([figure["row"], figure["what"], f"{figure['value']:,.5g} {figure['unit']}", conditions])
    return table(rows) if len(rows) > 1 else "no figures"


def failures(content: Cell) -> list[str]:
    """Return a line for each check that failed, and the traceback of each section that failed with one."""
    found = []
    for each in content["sections"]:
        found += [f"{each['section']}: {c['name']}: {c['detail']}" for c in each["checks"] if not c["ok"]]
        if each["traceback"]:
            found.append(f"{each['section']}:\n{each['traceback']}")
    return found


def _row_number(row: str) -> int:
    return int(row[1:]) if row[1:].isdigit() else 0
