"""Tables of values in notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_MAX_SHOWN_ROWS = 20


def html_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return the first rows as a table for a notebook."""
    lines = ["".join(f"<th>{escape(column)}</th>" for column in columns)]
    lines += ["".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in rows[:_MAX_SHOWN_ROWS]]
    if len(rows) > _MAX_SHOWN_ROWS:
        lines.append(f'<td colspan="{len(columns)}">and {len(rows) - _MAX_SHOWN_ROWS:,} more</td>')
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"
