"""The front, the trainer and a notebook refuse the same, in the same words."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyview_server.configuration import InvalidConfiguration
from manyview_server.configuration.field_check import check_fields
from manyview_server.errors import InvalidArgument
from manyview_server.learn import methods
from manyview_server.learn.methods import METHODS
from manyview_server.supervise.catalogue.catalogue import Catalogue
from manyview_server.worker.describe import describe

WRONG = st.sampled_from(
    [None, True, 0, -1, 2.5, 10**6, 1e300, float("nan"), "", "bilinear", [], [1, "a"], {}, {"a": 1}]
)

QUICK = ("moco", "swav", "dino", "mae")
"""Methods that together have a setting of every kind."""
EACH_METHOD = [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in METHODS]


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    """Return the catalogue that the worker prints, as the front reads it."""
    return Catalogue.parse(json.dumps(describe()))


def right_values(schema: Any) -> st.SearchStrategy[Any]:
    """Draw values that the schema of a field allows."""
    if "properties" in schema:
        return configurations(schema)
    if "anyOf" in schema:
        return right_values(schema["anyOf"][0])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    types = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    null = st.none() if "null" in types else st.nothing()
    if "array" in types:
        return st.lists(values(schema["items"]), min_size=schema["minItems"], max_size=min(3, schema["maxItems"]))
    if "boolean" in types:
        return null | st.booleans()
    if "string" in types:
        return null | st.sampled_from(["a.safetensors", "folder/b.safetensors"])
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = min(schema.get("maximum", schema.get("exclusiveMaximum")), low + 100)
    near_bounds = st.sampled_from([low, high])
    return null | near_bounds | (st.integers(low, int(high)) if "integer" in types else st.floats(low, high))


def values(schema: Any) -> st.SearchStrategy[Any]:
    """Draw a value that is nearly always right."""
    return st.integers(0, 19).flatmap(lambda number: WRONG if number == 0 else right_values(schema))


@st.composite
def configurations(draw: st.DrawFn, schema: Any) -> dict[str, Any]:
    """Draw some fields of an object, with short forms, and now and then one that it does not have."""
    names = (
        draw(st.lists(st.sampled_from(sorted(schema["properties"])), max_size=3, unique=True))
        if (schema["properties"])
        else []
    )
    found = {name: draw(values(schema["properties"][name])) for name in names}
    if "x-list" in schema and draw(st.booleans()):
        items = schema["properties"][schema["x-list"]]["items"]
        found[schema["x-list"]] = draw(
            st.dictionaries(st.sampled_from(["0", "1", "7", "x"]), values(items), max_size=2)
        )
    if draw(st.integers(0, 19)) == 0:
        found[draw(st.sampled_from(["epoch", "blurr", "knn_k", "zzz"]))] = draw(WRONG)
    return found


def leaves(config: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (container, key) of each value that is neither an object nor a list of objects."""
    for key, value in config.items() if isinstance(config, dict) else enumerate(config):
        if isinstance(value, dict) or (isinstance(value, list) and value and isinstance(value[0], dict)):
            yield from leaves(value)
        else:
            yield config, key


def outcome(call: Callable[[], Any]) -> Any:
    """Return what a path gives: a complete configuration, or violations."""
    try:
        return call()
    except InvalidConfiguration as error:
        return [(violation.field, violation.description) for violation in error.violations]
    except InvalidArgument as error:
        return [(violation.field.removeprefix("config."), violation.description) for violation in error.violations]


@pytest.mark.parametrize("method", EACH_METHOD)
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_what_the_front_refuses_at_create_is_what_the_library_refuses(
    catalogue: Catalogue, method: str, data: Any
) -> None:
    config = data.draw(configurations(catalogue.method(method).schema))
    at_create = outcome(lambda: catalogue.resolve(method, json.loads(json.dumps(config))))
    assert at_create == outcome(lambda: methods.to_json(methods.resolve(method, config)))
    if isinstance(at_create, dict):
        assert methods.to_json(methods.from_json(at_create)) == at_create


@pytest.mark.parametrize("method", EACH_METHOD)
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_what_is_wrong_with_a_stored_configuration_is_the_same_at_create_and_when_the_trainer_starts(
    catalogue: Catalogue, method: str, data: Any
) -> None:
    stored = copy.deepcopy(methods.to_json(METHODS[method].settings()))
    places = [(container, key) for container, key in leaves(stored) if key != "method"]
    for container, key in data.draw(st.lists(st.sampled_from(places), max_size=3)):
        container[key] = data.draw(WRONG | st.integers(1, 300) | st.floats(0, 1))
    at_create = outcome(lambda: catalogue.resolve(method, {}, json.loads(json.dumps(stored))))
    assert at_create == outcome(lambda: methods.to_json(methods.from_json(stored)))


@pytest.mark.parametrize("method", EACH_METHOD)
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_any_library_for_json_schema_refuses_the_same_fields(catalogue: Catalogue, method: str, data: Any) -> None:
    schema = catalogue.method(method).schema
    config = data.draw(configurations(schema))
    is_finite = "NaN" not in json.dumps(config)  # JSON has no such number
    assert (not check_fields(schema, config)) == (
        is_finite and jsonschema.Draft202012Validator(schema).is_valid(config)
    )


def test_settings_that_are_made_by_hand_are_refused_in_the_same_words(catalogue: Catalogue) -> None:
    settings = METHODS["moco"].settings
    with pytest.raises(InvalidConfiguration) as caught:
        settings(batch_size=0, temperature=1000.0)  # type: ignore[call-arg]
    found = [(violation.field, violation.description) for violation in caught.value.violations]
    assert found == outcome(lambda: catalogue.resolve("moco", {"batch_size": 0, "temperature": 1000.0}))
    with pytest.raises(InvalidConfiguration) as caught:
        settings(ema_momentum=0.9, ema_momentum_end=0.5)  # type: ignore[call-arg]
    found = [(violation.field, violation.description) for violation in caught.value.violations]
    assert found == outcome(lambda: catalogue.resolve("moco", {"ema_momentum": 0.9, "ema_momentum_end": 0.5}))
