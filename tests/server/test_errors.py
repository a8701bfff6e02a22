"""The error tree: every error has a canonical code of its own, and violations speak for themselves."""

from __future__ import annotations

import grpc
import pytest

from manyview_server import errors
from manyview_server.errors import InvalidArgument, ServiceError, Violation

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ServiceError)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_has_a_code_that_grpc_knows(kind: type[ServiceError]) -> None:
    assert kind.code in grpc.StatusCode.__members__


def test_no_two_errors_share_a_code() -> None:
    assert len({kind.code for kind in KINDS}) == len(KINDS)


def test_every_error_stands_in_the_modules_tree() -> None:
    assert errors.__doc__ is not None
    assert all(kind.__name__ in errors.__doc__ for kind in KINDS)


def test_all_violations_are_named_in_one_error() -> None:
    error = InvalidArgument.of(Violation(field="a", description="is 0"), Violation(field="b.c", description="is -1"))
    assert error.reason == "FIELD_INVALID"
    assert [violation.field for violation in error.violations] == ["a", "b.c"]
    assert str(error) == "a: is 0; b.c: is -1"


def test_metadata_is_a_copy() -> None:
    metadata = {"expected": "4"}
    error = ServiceError("X", "text", metadata=metadata)
    metadata["expected"] = "5"
    assert error.metadata == {"expected": "4"}
    assert error.retry_after_s == 0
