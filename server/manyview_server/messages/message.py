"""The base class of all messages, and the first message of every worker."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Json = Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message in either direction. `blobs` are bytes that travel beside the fields."""

    blobs: tuple[bytes, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello(Message):
    """The first message of a worker, with the versions of the packages that it uses."""

    pid: int
    versions: dict[str, str]
