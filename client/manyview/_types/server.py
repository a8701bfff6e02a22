"""A server, with its limits, devices and times."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The server's limits on one message and one image."""

    max_message_bytes: int
    max_image_bytes: int
    max_image_pixels: int
    max_image_side: int
    max_batch_images: int


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device that the server computes on, such as "cpu" or "cuda:0"."""

    name: str
    description: str
    memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class ServerInfo:
    """A server's version, limits and devices."""

    version: str
    limits: Limits
    devices: tuple[Device, ...]
    start_time: datetime | None


@dataclass(frozen=True, kw_only=True)
class EmbedTiming:
    """The server's times, in milliseconds, summed over the batches."""

    queue_ms: float = 0.0
    decode_ms: float = 0.0
    forward_ms: float = 0.0
