"""One member of a sample that may hold its label or its key."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from manyview._uploads.labels.label_text import label_text

_MOST_TEXT_BYTES = 4096
"""A longer text is a caption, and a longer class is an error."""
_MOST_JSON_BYTES = 64 << 20
_LABEL_FIELDS = ("label", "cls", "class")
_MOST_CLASS_WORDS = 4
_MOST_CLASS_LENGTH = 50
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class SampleText:
    """The label and the key that a member gives, "" for none. `error` says why it cannot be read. `is_caption`: the
    label is no name of a class."""

    stem: str
    rank: int
    label: str = ""
    key: str = ""
    error: str = ""
    is_caption: bool = False


def read_text(is_json: bool, num_bytes: int, read: Callable[[int], bytes], where: str) -> tuple[str, str]:
    """Return the label and the key in a member. `where` names it in errors.

    Raises ValueError if it is not UTF-8, not JSON, or its label is not one line of text or one number.
    """
    most = _MOST_JSON_BYTES if is_json else _MOST_TEXT_BYTES
    if num_bytes > most:
        raise ValueError(f"{where} has {num_bytes:,} bytes; at most {most:,} are allowed")
    try:
        text = read(most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not UTF-8: {error}") from error
    if not is_json:
        return label_text(text, where), ""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not JSON: {error}") from error
    return _from_json(fields, where) if isinstance(fields, dict) else ("", "")


def _from_json(fields: dict[str, Any], where: str) -> tuple[str, str]:
    found = next((fields[name] for name in _LABEL_FIELDS if fields.get(name) is not None), None)
    # A list or a mapping describes the image (boxes, several labels), and is no class.
    label = "" if isinstance(found, list | dict) else label_text(found, where)
    key = fields.get("key")
    return label, str(key).encode("utf-8", "replace").decode() if isinstance(key, str | int) else ""


def looks_like_class(text: str) -> bool:
    """Is a text short enough for the name of a class? Captions have more words or several lines."""
    is_short = len(text) <= _MOST_CLASS_LENGTH and len(text.split(" ")) <= _MOST_CLASS_WORDS
    return is_short and not _CONTROL.search(text) and not text.endswith((".", "!", "?"))
