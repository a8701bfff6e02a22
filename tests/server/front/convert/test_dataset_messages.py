"""Records and messages say the same."""

from __future__ import annotations

import math

import numpy as np
import pytest
from google.protobuf.struct_pb2 import Struct
from hypothesis import given, settings
from hypothesis import strategies as st

from manyview.v1 import dataset_service_pb2, metrics_service_pb2, types_pb2
from manyview_server.errors import InvalidArgument
from manyview_server.front.convert import dataset_messages, embedding_messages, job_messages
from manyview_server.messages.embedding import EmbedDone, RowFailed
from manyview_server.store.records import ImageOutcome, ImageRecord

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text(max_size=10), JSON, max_size=5))
def test_a_configuration_comes_back_with_its_types(values: dict[str, object]) -> None:
    back = job_messages.plain(job_messages.struct(values))
    assert back == values


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_named_by_their_path(number: float) -> None:
    config = Struct()
    config.update({"views": {"blur": [1, number]}})
    with pytest.raises(InvalidArgument) as caught:
        job_messages.plain(config)
    assert caught.value.violations[0].field == "config.views.blur[1]"


def test_whole_numbers_are_int_and_others_stay() -> None:
    config = Struct()
    config.update({"epochs": 3, "rate": 0.5, "huge": 1e300})
    assert {name: type(value) for name, value in job_messages.plain(config).items()} == {
        "epochs": int,
        "rate": float,
        "huge": float,
    }


def test_times_keep_their_microseconds_and_zero_is_unset() -> None:
    stamp = dataset_messages.timestamp(1_700_000_000.123456)
    assert stamp is not None
    assert (stamp.seconds, stamp.nanos) == (1_700_000_000, 123_456_000)
    assert dataset_messages.timestamp(0) is None


def test_image_ids_have_sixteen_digits() -> None:
    assert dataset_messages.image_id(0xAB) == "00000000000000ab"
    assert dataset_messages.image_id(2**63 - 1) == "7fffffffffffffff"
    assert dataset_messages.image_id(0) == ""


@pytest.mark.parametrize("outcome", ["STORED", "DUPLICATE", "REJECTED"])
def test_every_outcome_has_its_enum(outcome: str) -> None:
    message = dataset_messages.image_result(
        ImageOutcome(outcome=outcome, image_id=5, first_key="k", label_differs=True)  # type: ignore[arg-type]
    )
    assert message.outcome == dataset_service_pb2.ImageResult.Outcome.Value(f"OUTCOME_{outcome}")
    assert (message.first_key, message.label_differs, message.HasField("error")) == ("k", True, False)


def test_an_unreadable_image_has_its_reason() -> None:
    record = ImageRecord(
        image_id=1, key="k", label="", status="UNREADABLE", num_bytes=9, width=2, height=3, reason="R", message="m"
    )
    message = dataset_messages.stored_image(record)
    assert message.status == dataset_service_pb2.StoredImage.STATUS_UNREADABLE
    assert (message.error.reason, message.error.message, message.width, message.height) == ("R", "m", 2, 3)


def test_every_state_and_kind_of_the_contract_has_the_stores_name() -> None:
    for name in types_pb2.TrainJobState.keys():  # noqa: SIM118 (an enum wrapper, no dict)
        assert job_messages.state(name.removeprefix("TRAIN_JOB_STATE_")) == name
    assert job_messages.state("") == "TRAIN_JOB_STATE_UNSPECIFIED"
    assert len(metrics_service_pb2.MetricsEvent.Kind.keys()) == 8


def test_embeddings_travel_as_they_came() -> None:
    rows = np.arange(6, dtype="<f2").reshape(2, 3)
    done = EmbedDone(
        request_id=1,
        shape=(2, 3),
        errors=(),
        queue_ms=1,
        decode_ms=2,
        forward_ms=3,
        batch_images=4,
        blobs=(rows.tobytes(),),
    )
    tensor = embedding_messages.tensor(done, "float16")
    assert np.array_equal(np.frombuffer(tensor.data, "<f2").reshape(tensor.shape), rows)
    assert embedding_messages.timing(done).batch_images == 4
    error = embedding_messages.row_error(RowFailed(row=1, reason="R", message="m"))
    assert (error.row, error.error.reason) == (1, "R")
