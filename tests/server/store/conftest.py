"""A store in a fresh directory, and images for it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from manyview_server.store.records import CheckedImage, RejectedImage
from manyview_server.store.store import Store

MakeImage = Callable[..., CheckedImage]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store.open(tmp_path / "data", reserve_bytes=0)
    yield opened
    await opened.close()


@pytest.fixture
def image() -> MakeImage:
    """Makes an image of arbitrary bytes, because the store does not decode them."""

    def make(number: int, *, label: str = "", key: str = "", num_bytes: int = 100) -> CheckedImage:
        data = f"image {number} ".encode().ljust(num_bytes, b".")
        digest = hashlib.sha256(data).digest()
        return CheckedImage(
            data=data, key=key or f"{number}.jpg", label=label, sha256=digest, extension="jpg", width=4, height=3
        )

    return make


@pytest.fixture
def refused() -> Callable[[int], RejectedImage]:
    """Makes an image that the front has rejected."""

    def make(number: int) -> RejectedImage:
        digest = hashlib.sha256(str(number).encode()).digest()
        return RejectedImage(
            key=f"{number}.gif", label="", sha256=digest, reason="FORMAT_NOT_ALLOWED", message="a GIF", num_bytes=7
        )

    return make
