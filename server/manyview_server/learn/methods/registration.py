"""The entry with which a method is registered, by this package or by a plugin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from manyview_server.learn.methods.method import Method
from manyview_server.learn.settings import TrainSettings


@dataclass(frozen=True, kw_only=True)
class MethodEntry:
    """The description of a method, with which it can be configured and built."""

    title: str
    paper: str
    """The address of the paper."""
    settings: type[TrainSettings]
    build: Callable[[Any], Method]
    """Builds the method from settings of that class in which nothing is left open."""
