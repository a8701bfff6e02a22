"""Batches read from the bytes of their messages are those that the protobuf library reads."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyview.v1 import dataset_service_pb2 as pb
from manyview.v1 import types_pb2
from manyview_server.front.datasets.received_batch import MAX_IMAGES, MAX_TEXT_BYTES, read_batch
from manyview_server.front.rpc import wire_check

IMAGES = st.builds(
    types_pb2.Image,
    data=st.sampled_from([0, 1, 127, 128, 16_383, 16_384, 40_000]).map(bytes) | st.binary(max_size=300),
    key=st.text(max_size=200),
    label=st.text(max_size=200),
    sha256=st.sampled_from([b"", bytes(32), b"short"]),
)
DESCRIPTOR: Any = pb.UploadImagesRequest.DESCRIPTOR
REQUEST = wire_check.wire_message(DESCRIPTOR)


def message(number: int, images: list[types_pb2.Image]) -> bytes:
    return pb.UploadImagesRequest(batch=types_pb2.ImageBatch(number=number, images=images)).SerializeToString()


def fields(images: object) -> list[tuple[bytes, str, str, bytes]]:
    return [(image.data, image.key, image.label, image.sha256) for image in images]  # type: ignore[attr-defined]


@given(st.integers(1, 2**63 - 1), st.lists(IMAGES, max_size=5))
def test_a_batch_is_read_as_the_library_reads_it(number: int, images: list[types_pb2.Image]) -> None:
    data = message(number, images)
    batch = read_batch(data)
    assert batch is not None
    assert (batch.number, batch.num_bytes, fields(batch.images)) == (number, len(data), fields(images))
    assert [image.view for image in batch.images] == [image.data for image in images]


@given(st.lists(IMAGES, max_size=3), st.data())
def test_what_is_read_from_damaged_bytes_is_what_the_library_reads(
    images: list[types_pb2.Image], draw: st.DataObject
) -> None:
    data = bytearray(message(7, images))
    for _ in range(draw.draw(st.integers(1, 4))):
        at = draw.draw(st.integers(0, min(40, len(data))))
        data[at : at + draw.draw(st.integers(0, 2))] = draw.draw(st.binary(max_size=2))
    found = read_batch(bytes(data))
    if found is not None:
        list(wire_check.check(bytes(data), REQUEST))
        parsed = pb.UploadImagesRequest.FromString(bytes(data))
        assert (found.number, fields(found.images)) == (parsed.batch.number, fields(parsed.batch.images))


@given(st.binary(max_size=60))
def test_any_bytes_are_read_without_an_error(data: bytes) -> None:
    read_batch(data)
    read_batch(b"\x12" + bytes([len(data)]) + data)


IMAGE = types_pb2.Image(data=b"x", key="k", label="l", sha256=bytes(32))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        pb.UploadImagesRequest(header=pb.UploadHeader(dataset="datasets/a")).SerializeToString(),
        pb.UploadImagesRequest(finish=pb.UploadFinish(num_images=1)).SerializeToString(),
        message(0, [IMAGE]),
        message(-1, [IMAGE]),
        message(1, [IMAGE])[:-1],
        message(1, [IMAGE]) + b"\0",
        message(1, [IMAGE]) * 2,
        message(1, [types_pb2.Image(key="k" * (MAX_TEXT_BYTES + 1))]),
        message(1, [types_pb2.Image(sha256=bytes(33))]),
        message(1, [types_pb2.Image()] * (MAX_IMAGES + 1)),
        message(1, [IMAGE]).replace(b"\x12\x01k", b"\x12\x01\xff"),
        b"\x12\x0a\x08\x01\x12\x06\x12\x01k\x0a\x01x",
    ],
    ids=[
        *("empty", "header", "finish", "no number", "negative number", "cut off", "longer", "two batches"),
        *("long key", "long digest", "many images", "no UTF-8", "fields in another order"),
    ],
)
def test_other_messages_are_left_to_the_library(data: bytes) -> None:
    assert read_batch(data) is None


def test_endless_numbers_cost_nothing() -> None:
    began = time.process_time()
    assert read_batch(b"\x12" + b"\xff" * 30_000_000) is None
    assert time.process_time() - began < 1
