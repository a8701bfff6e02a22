"""Requests that are too large are refused by their bytes, in a bounded number of steps, with the field's name."""

from __future__ import annotations

from typing import Any, cast

import pytest
from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from hypothesis import given, settings
from hypothesis import strategies as st

from manyview.v1 import dataset_service_pb2 as ds
from manyview.v1 import embed_service_pb2 as em
from manyview.v1 import metrics_service_pb2 as ms
from manyview.v1 import train_job_service_pb2 as tj
from manyview.v1 import types_pb2
from manyview_server.errors import InvalidArgument
from manyview_server.front.rpc import wire_check
from manyview_server.front.rpc.wire_check import NotOnTheWire, wire_message


def num_pauses(kind: type[Message], data: bytes) -> int:
    return len(list(wire_check.check(data, wire_message(cast(Any, kind.DESCRIPTOR)))))


def configured(config: dict[str, Any]) -> tj.CreateTrainJobRequest:
    return tj.CreateTrainJobRequest(config=json_format.ParseDict(config, Struct()))


def nested(depth: int) -> dict[str, Any]:
    return {"a": nested(depth - 1)} if depth else {}


def image(size: int = 10) -> types_pb2.Image:
    return types_pb2.Image(data=bytes(size), key="cats/1.jpg", label="cat", sha256=bytes(32))


FITTING = [
    tj.GetTrainJobRequest(name="trainJobs/a"),
    tj.GetTrainJobRequest(),
    configured({"views": {"pipelines": [{"count": 1}] * 64}, "epochs": 3, "on": True, "x": None, "text": "é" * 2048}),
    configured({"list": [[1.5] * 256] * 15}),
    configured(nested(15)),
    em.EmbedRequest(model="backbones/thin", images=[image(100_000)] * 100),
    ds.UploadImagesRequest(batch=types_pb2.ImageBatch(number=1, images=[image()] * 256)),
    em.SelectSamplesRequest(chosen=[ds.ImageRef(image_id="0123456789abcdef")] * 100_000),
    em.SelectSamplesRequest(balance=em.ClassBalance(counts={f"label {i}": 3 for i in range(1000)})),
    ms.SubscribeMetricsRequest(kinds=["KIND_SCALARS", "KIND_STATE", "KIND_CHECKPOINT"], after_sequence=2**62),
    ms.QueryMetricsRequest(metric_names=["loss"] * 1000),
]


@pytest.mark.parametrize("request_", FITTING, ids=lambda r: f"{type(r).__name__}-{r.ByteSize()}")
def test_what_is_within_the_limits_passes(request_: Message) -> None:
    num_pauses(type(request_), request_.SerializeToString())


TOO_LARGE = [
    (tj.GetTrainJobRequest(name="a" * 600), "name", "has 600 bytes; at most 512 are allowed"),
    (configured({"a": "x" * 5000}), "config.a", "has 5,000 bytes; at most 4,096 are allowed"),
    (configured({"a": {"b": [{}] * 300}}), "config.a.b", "has more than 256 items; at most 256 are allowed"),
    (configured({"a": {f"k{i}": 1 for i in range(300)}}), "config.a", "has more than 256 entries"),
    (configured({"a": ["x" * 4000] * 40}), "config", "has 160,"),
    (configured({"a": [[1] * 200] * 30}), "config", "has more than 4,096 values"),
    (configured(nested(20)), "config", "has more than 16 levels of lists and objects"),
    (configured({"a": {"k" * 300: 1}}), "config.a", "has 300 bytes; at most 256"),
    (configured({"a": [1, {"b": "x" * 5000}]}), "config.a[1].b", "has 5,000 bytes"),
    (tj.PreviewViewsRequest(images=[tj.PreviewImage()] * 300), "images", "has more than 256 items"),
    (em.EmbedRequest(images=[types_pb2.Image()] * 5000), "images", "has more than 4,096 items"),
    (em.EmbedRequest(images=[types_pb2.Image(), types_pb2.Image(key="k" * 70_000)]), "images[1].key", "has 70,000"),
    (em.FindNeighborsRequest(stored=[ds.ImageRef()] * 10_001), "stored", "has more than 10,000 items"),
    (em.SelectSamplesRequest(chosen=[ds.ImageRef(key="k" * 5000)]), "chosen[0].key", "has 5,000 bytes"),
    (ms.SubscribeMetricsRequest(kinds=["KIND_SCALARS"] * 700), "kinds", "has 700 bytes; at most 640"),
    (ms.QueryMetricsRequest(metric_names=["a"] * 1001), "metric_names", "has more than 1,000 items"),
    (
        em.SelectSamplesRequest(balance=em.ClassBalance(counts={f"{i}": 1 for i in range(25_001)})),
        "balance.counts",
        "has more than 25,000 entries",
    ),
]


@pytest.mark.parametrize(("request_", "field", "text"), TOO_LARGE, ids=lambda v: v if isinstance(v, str) else "")
def test_what_is_over_a_limit_is_refused_by_name_with_the_count_and_the_limit(
    request_: Message, field: str, text: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        num_pauses(type(request_), request_.SerializeToString())
    (violation,) = refused.value.violations
    assert violation.field == field
    assert text in violation.description


BOMB_BYTES = 16 << 20
BOMBS = [
    # Eight million empty values of a list in a configuration; the same of a text, and of a field that nobody knows.
    (tj.CreateTrainJobRequest, b"\x22\x80\x80\x80\x08" + b"\x0a\x00" * (BOMB_BYTES // 2)),
    (tj.GetTrainJobRequest, b"\x0a\x00" * (BOMB_BYTES // 2)),
    (tj.GetTrainJobRequest, b"\x7a\x00" * (BOMB_BYTES // 2)),
    (ms.QueryMetricsRequest, b"\x12\x00" * (BOMB_BYTES // 2)),
    (em.EmbedRequest, b"\x12\x00" * (BOMB_BYTES // 2)),
    (em.SelectSamplesRequest, b"\x3a\x00" * (BOMB_BYTES // 2)),
]


@pytest.mark.parametrize(("kind", "data"), BOMBS, ids=lambda v: v.__name__ if isinstance(v, type) else "")
def test_a_bomb_is_refused_after_as_many_records_as_its_limit_allows(kind: type[Message], data: bytes) -> None:
    pauses: list[None] = []
    with pytest.raises(InvalidArgument):
        pauses.extend(wire_check.check(data, wire_message(cast(Any, kind.DESCRIPTOR))))
    assert len(pauses) * wire_check.RECORDS_AT_ONCE <= 100_001


@pytest.mark.parametrize(
    "data", [b"\x0a", b"\x0a\x05ab", b"\x0a\xff\xff", b"\xff" * 20, b"\x0b", b"\x0f", b"\x09\x00"], ids=repr
)
def test_malformed_bytes_get_another_error_than_a_message_that_is_too_large(data: bytes) -> None:
    with pytest.raises(NotOnTheWire):
        num_pauses(tj.GetTrainJobRequest, data)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused_and_nothing_else_happens(data: bytes) -> None:
    for kind in (tj.CreateTrainJobRequest, em.SelectSamplesRequest, ds.UploadImagesRequest):
        try:
            num_pauses(kind, data)
        except (InvalidArgument, NotOnTheWire):
            continue


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=10), inner, max_size=5),
    max_leaves=30,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text(max_size=10), JSON, max_size=5))
def test_every_small_configuration_passes(config: dict[str, Any]) -> None:
    request = configured(config)
    num_pauses(type(request), request.SerializeToString())
