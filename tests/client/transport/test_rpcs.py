"""The contract and the SDK agree: every RPC has its method, and the fake server its answer."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from manyview._testing.replies import FakeState, snake
from manyview._transport.rpcs import Rpcs
from manyview.v1 import (
    dataset_service_pb2,
    embed_service_pb2,
    metrics_service_pb2,
    model_service_pb2,
    train_job_service_pb2,
)

FILES = (dataset_service_pb2, embed_service_pb2, metrics_service_pb2, model_service_pb2, train_job_service_pb2)
METHODS = [method for f in FILES for service in f.DESCRIPTOR.services_by_name.values() for method in service.methods]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_every_rpc_is_wrapped_by_the_sdk_and_answered_by_the_fake(method: Any) -> None:
    wrapper = getattr(Rpcs, snake(method.name))
    assert f"{method.containing_service.name}/{method.name}" in inspect.getsource(wrapper)
    assert callable(getattr(FakeState, snake(method.name)))


def test_the_sdk_wraps_nothing_else() -> None:
    public = {name for name in vars(Rpcs) if not name.startswith("_")}
    assert public == {snake(method.name) for method in METHODS}


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_every_change_is_sent_with_a_request_id(method: Any) -> None:
    changes = "request_id" in method.input_type.fields_by_name
    assert ("_mutate" in inspect.getsource(getattr(Rpcs, snake(method.name)))) == changes
