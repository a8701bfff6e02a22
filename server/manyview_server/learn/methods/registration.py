"""What is known of a method before it is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from manyview_server.learn.methods.method import Method
from manyview_server.learn.settings import TrainSettings


@dataclass(frozen=True, kw_only=True)
class MethodEntry:
    """A method as it is registered by name, our own or a plugin's."""

    title: str
    paper: str
    """Address of the paper."""
    settings: type[TrainSettings]
    build: Callable[[Any], Method]
    """From settled settings of that type."""
