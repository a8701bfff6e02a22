"""One label, of any kind that callers have, as the text that is sent."""

from __future__ import annotations

import math
import re
import sys
from typing import Any

_MAX_BYTES = 1024
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_NUM_SHOWN = 40
"""The most characters of a label that an error shows."""


def label_text(value: Any, of: str) -> str:
    """Return a label as text, or "" for no label. `of` names the image, or the place in a file, in errors.

    None, NaN, pandas.NA, masked values and blank text are no label. White space around a text is removed. A whole
    number is written without a fraction, because a column of whole numbers with a gap holds floats: 3.0 is "3".

    Raises:
        TypeError: it is neither text nor one number.
        ValueError: the text has control characters, is too long or is not Unicode, or the number is infinite.
    """
    if _is_missing(value):
        return ""
    if isinstance(value, bytes | bytearray):
        return _text(value.decode("utf-8", "surrogateescape"), of)
    if isinstance(value, str):
        return _text(str.__str__(value), of)  # the text of a str that is also an Enum is its value
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return _number(float(value), of)
    if hasattr(value, "shape") and hasattr(value, "item") and math.prod(value.shape) == 1:
        return label_text(value.item(), of)
    raise TypeError(f"{of}: {_why_not(value)}")


def _is_missing(value: Any) -> bool:
    pandas, masked_arrays = sys.modules.get("pandas"), sys.modules.get("numpy.ma")
    if value is None or (masked_arrays is not None and value is masked_arrays.masked):
        return True
    return pandas is not None and (value is pandas.NA or value is pandas.NaT)


def _number(value: float, of: str) -> str:
    if math.isnan(value):
        return ""
    if math.isinf(value):
        raise ValueError(f"{of}: the label must be finite, not {value}")
    return str(int(value)) if value.is_integer() else str(value)


def _text(text: str, of: str) -> str:
    text = text.strip()
    if found := _CONTROL.search(text):
        raise ValueError(f"{of}: the label {_shown(text)} has the control character {found[0]!r}; remove it")
    try:
        num_bytes = len(text.encode())
    except UnicodeEncodeError:
        raise ValueError(f"{of}: the label {_shown(text)} is not valid UTF-8") from None
    if num_bytes > _MAX_BYTES:
        raise ValueError(f"{of}: the label {_shown(text)} has {num_bytes:,} bytes; at most {_MAX_BYTES:,} are allowed")
    return text


def _shown(text: str) -> str:
    return repr(text if len(text) <= _NUM_SHOWN else f"{text[: _NUM_SHOWN - 1]}…")


def _why_not(value: Any) -> str:
    if hasattr(value, "shape"):
        shape = tuple(value.shape)
        return f"an image has one label, not an array of shape {shape}; for a one-hot row, give its argmax()"
    if isinstance(value, list | tuple):
        are_numbers = bool(value) and all(isinstance(item, int | float) for item in value)
        hint = "; for a one-hot row, give its argmax: row.index(max(row))" if are_numbers else ""
        return f"an image has one label, not a {type(value).__name__} of {len(value)}{hint}"
    return f"a label must be text or one number, not {type(value).__name__}; str() makes it text"
