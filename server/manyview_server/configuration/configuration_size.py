"""Limits of the size of a configuration, as it is sent and as it is resolved.

Resolving takes time for each value, and up to a tenth of a millisecond for each wrong one, so these numbers bound what
one request can cost. They are far above what any recipe needs: a complete configuration has about 100 values.
"""

from __future__ import annotations

from collections.abc import Mapping

from manyview_server.configuration.schema import Json
from manyview_server.configuration.violations import InvalidConfiguration, Violation

MAX_BYTES = 128 << 10
"""The most bytes of the message that holds it."""
MAX_VALUES = 4_096
"""The most numbers, texts, lists and objects together."""
MAX_DEPTH = 16
"""The most levels of lists and objects."""
MAX_ITEMS = 256
"""The most items of one list."""
MAX_KEYS = 256
"""The most keys of one object."""
MAX_KEY_BYTES = 256
MAX_TEXT_BYTES = 4_096

MAX_EXPANDED_VALUES = 8_192
MAX_EXPANDED_TEXT_BYTES = 256 << 10
"""The limits once short forms are expanded. The bytes are those of texts and keys together."""


def check_size(expanded: Json) -> None:
    """Raise InvalidConfiguration if a configuration without short forms has too many values, or too much text.

    A value that is given once for all pipelines counts once for each pipeline. The count stops at the limit.
    """
    waiting, num_values, num_bytes = [expanded], 0, 0
    while waiting:
        value = waiting.pop()
        num_values += 1
        if isinstance(value, str):
            num_bytes += len(value.encode())
        elif isinstance(value, Mapping):
            num_bytes += sum(len(key.encode()) for key in value)
            waiting.extend(value.values())
        elif isinstance(value, list | tuple):
            waiting.extend(value)
        if num_values > MAX_EXPANDED_VALUES:
            raise _too_large(MAX_EXPANDED_VALUES, "values")
        if num_bytes > MAX_EXPANDED_TEXT_BYTES:
            raise _too_large(MAX_EXPANDED_TEXT_BYTES, "bytes of texts and keys")


def _too_large(most: int, unit: str) -> InvalidConfiguration:
    """The violation is one of the whole configuration: it names no field."""
    text = f"has more than {most:,} {unit} once its short forms are expanded; at most {most:,} are allowed"
    return InvalidConfiguration([Violation(field="", description=text)])
