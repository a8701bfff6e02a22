"""The limit of texts that workers send for events, failures and unreadable images."""

from __future__ import annotations

from typing import Any

# Workers may send longer texts, but answers that show a page of events must stay far below the largest message.
MAX_TEXT_CHARACTERS = 8_192


def shortened(value: Any) -> Any:
    """Return a text cut to `MAX_TEXT_CHARACTERS`, or any other value as it is."""
    if isinstance(value, str) and len(value) > MAX_TEXT_CHARACTERS:
        return value[: MAX_TEXT_CHARACTERS - 1] + "…"
    return value
