"""Settings as JSON values."""

from __future__ import annotations

import dataclasses
from typing import Any

from manyview_server.configuration.field import fields_of


def to_json(settings: object) -> dict[str, Any]:
    """`settings` as JSON values; `read` gives exactly `settings` again."""
    return {name: as_json(getattr(settings, name)) for name in fields_of(type(settings))}


def as_json(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_json(value)
    if isinstance(value, dict):
        return {name: as_json(item) for name, item in value.items()}
    return [as_json(item) for item in value] if isinstance(value, tuple) else value
