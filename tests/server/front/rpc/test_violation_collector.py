from __future__ import annotations

import pytest

from manyview_server.errors import InvalidArgument
from manyview_server.front.rpc import resource_names as names
from manyview_server.front.rpc.violation_collector import ViolationCollector


def test_all_that_is_wrong_is_told_at_once() -> None:
    violations = ViolationCollector()
    violations.add("count", "0: at least 1")
    assert violations.read(lambda: names.dataset_id("x", "dataset"), "instead") == "instead"
    assert violations.read(lambda: names.dataset_id("datasets/x", "dataset"), "instead") == "x"
    with pytest.raises(InvalidArgument) as caught:
        violations.raise_if_any()
    assert [violation.field for violation in caught.value.violations] == ["count", "dataset"]
    assert "count: 0: at least 1; dataset: 'x' is not of the form datasets/{id}" in caught.value.message


def test_nothing_wrong_is_no_error() -> None:
    ViolationCollector().raise_if_any()
