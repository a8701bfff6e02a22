"""Read the few settings that the early checks need, from the same places as the full reader, which comes later.

This reader ignores wrong and unknown settings, because the full reader reports them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

VARIABLE = "MANYVIEW_SERVER_"
LISTEN = "127.0.0.1:50051"
"""The default of `--listen`."""
LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlySettings:
    """Settings as text. "" stands for one that is not given."""

    data: str = ""
    listen: str = LISTEN
    tls_cert: str = ""
    tls_key: str = ""
    token_file: str = ""
    log_level: str = "info"
    """One of LOG_LEVELS."""

    @classmethod
    def read(cls, arguments: Sequence[str], environment: Mapping[str, str]) -> EarlySettings:
        """Read flags, then variables, then the file that either of them names."""
        variables = {name.upper(): value for name, value in environment.items()}
        config = _flag(arguments, "config") or variables.get(f"{VARIABLE}CONFIG", "")
        file = _read_file(config) if config else {}
        given = {
            field.name: _flag(arguments, field.name)
            or variables.get(f"{VARIABLE}{field.name.upper()}", "")
            or str(file.get(field.name, ""))
            for field in fields(cls)
        }
        if given["log_level"] not in LOG_LEVELS:
            given["log_level"] = ""
        return cls(**{name: value for name, value in given.items() if value})


def _read_file(path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text())
    except (OSError, ValueError):
        return {}


def _flag(arguments: Sequence[str], name: str) -> str:
    """Return the last value of a flag, or "" if it is not given."""
    flag, value = f"--{name.replace('_', '-')}", ""
    for index, argument in enumerate(arguments):
        if argument == flag:
            value = next(iter(arguments[index + 1 :]), "")
        elif argument.startswith(f"{flag}="):
            value = argument.removeprefix(f"{flag}=")
    return value
