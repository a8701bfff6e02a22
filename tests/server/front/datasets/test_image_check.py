"""The checks of an image before it is decoded."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from manyview.v1 import types_pb2
from manyview_server.front.datasets.image_check import check_embed, check_upload
from manyview_server.front.limits import ImageLimits
from manyview_server.store.records import CheckedImage, RejectedImage

LIMITS = ImageLimits(max_bytes=1000, max_pixels=500, max_side=40)


def reason(result: CheckedImage | RejectedImage) -> str:
    return result.reason if isinstance(result, RejectedImage) else ""


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [(40, 12, ""), (41, 1, "SIDE_TOO_LONG"), (1, 41, "SIDE_TOO_LONG"), (26, 20, "TOO_MANY_PIXELS"), (25, 20, "")],
)
def test_sides_and_pixels_are_bounded(png: Any, image: Any, width: int, height: int, expected: str) -> None:
    (result,) = check_upload([image(png(1, width, height))], LIMITS)
    assert reason(result) == expected


def test_bytes_are_bounded(image: Any) -> None:
    def ppm(num_pixels: int) -> bytes:
        return b"P6 %d 1 255\n" % num_pixels + bytes(3 * num_pixels)

    limits = ImageLimits(max_bytes=len(ppm(30)), max_pixels=500, max_side=400)
    assert [reason(r) for r in check_upload([image(ppm(30)), image(ppm(31))], limits)] == ["", "IMAGE_TOO_LARGE"]


def test_an_accepted_image_carries_what_the_store_keeps(png: Any, image: Any) -> None:
    (result,) = check_upload([image(png(1, 9, 7), "k", "l")], LIMITS)
    assert isinstance(result, CheckedImage)
    assert (result.key, result.label, result.extension, result.width, result.height) == ("k", "l", "png", 9, 7)
    assert result.sha256 == hashlib.sha256(result.data).digest()


def test_a_refused_image_keeps_the_checksum_that_the_digest_chain_needs(png: Any) -> None:
    data = png(1)
    sent = types_pb2.Image(data=data, sha256=b"\1" * 32)
    unsent = types_pb2.Image(data=data, sha256=b"\1" * 31)
    first, second = check_upload([sent, unsent], LIMITS)
    assert (first.sha256, second.sha256) == (b"\1" * 32, hashlib.sha256(data).digest())
    assert reason(first) == reason(second) == "CHECKSUM_MISMATCH"


@pytest.mark.parametrize("text", ["a\x00b", "a\x7f", "a\x85", "\ntext", "é" * 513])
def test_keys_and_labels_are_short_and_printable(png: Any, image: Any, text: str) -> None:
    results = check_upload([image(png(1), key=text), image(png(1), label=text)], LIMITS)
    assert [reason(result) for result in results] == ["KEY_INVALID", "LABEL_INVALID"]
    assert all(len(result.key.encode()) <= 1024 for result in results)
    assert "\x00" not in results[0].key


def test_keys_up_to_the_limit_pass(png: Any, image: Any) -> None:
    results = check_upload([image(png(1), key="é" * 512), image(png(1), key="ordner/bild 1.jpg")], LIMITS)
    assert [reason(result) for result in results] == ["", ""]


def test_embedding_compares_a_checksum_only_where_one_came(png: Any) -> None:
    assert check_embed(types_pb2.Image(data=png(1)), LIMITS) is None
    refused = check_embed(types_pb2.Image(data=png(1), sha256=bytes(32)), LIMITS)
    assert refused is not None
    assert refused.reason == "CHECKSUM_MISMATCH"
