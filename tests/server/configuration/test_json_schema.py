from __future__ import annotations

# ruff: noqa: RUF009 - `setting` and `changed` make dataclass fields, and their defaults are frozen
import json
from dataclasses import dataclass
from typing import Any

import jsonschema
import pytest

from manyview_server.configuration import InvalidConfiguration, changed, json_schema, setting, to_json
from manyview_server.learn import methods
from manyview_server.learn.methods import METHODS


@dataclass(frozen=True, kw_only=True)
class Lamp:
    on: bool = setting(True, "Whether it shines.")
    watts: float = setting(60.0, "Power.", exclusive_minimum=0, maximum=100, needs=("on",))
    tint: tuple[float, float] = setting((0.5, 0.5), "Two numbers.", minimum=0, exclusive_maximum=1)


@dataclass(frozen=True, kw_only=True)
class Room:
    lamp: Lamp = setting(Lamp(), "The lamp.")
    name: str | None = setting(None, "The name, if any.")
    kind: str = setting("attic", "The kind.", choices=("attic", "cellar"))


@dataclass(frozen=True, kw_only=True)
class Cellar(Room):
    lamp: Lamp = changed(Room, "lamp", Lamp(watts=5.0))
    kind: str = changed(Room, "kind", "cellar", description="Always a cellar.", choices=("cellar",))


def test_the_schema_holds_types_defaults_bounds_and_descriptions() -> None:
    assert json_schema(Room) == {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Room",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "lamp": {
                "description": "The lamp.",
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "on": {"description": "Whether it shines.", "default": True, "type": "boolean"},
                    "watts": {
                        "description": "Power.",
                        "default": 60.0,
                        "type": "number",
                        "exclusiveMinimum": 0,
                        "maximum": 100,
                        "x-needs": ["on"],
                    },
                    "tint": {
                        "description": "Two numbers.",
                        "default": [0.5, 0.5],
                        "type": "array",
                        "items": {"type": "number", "minimum": 0, "exclusiveMaximum": 1},
                        "minItems": 2,
                        "maxItems": 2,
                    },
                },
            },
            "name": {"description": "The name, if any.", "default": None, "type": ["string", "null"]},
            "kind": {"description": "The kind.", "default": "attic", "type": "string", "enum": ["attic", "cellar"]},
        },
    }


def test_a_subclass_changes_defaults_descriptions_and_bounds() -> None:
    properties = json_schema(Cellar)["properties"]
    assert properties["lamp"]["properties"]["watts"]["default"] == 5.0
    assert properties["lamp"]["description"] == "The lamp."
    assert properties["kind"] == {
        "description": "Always a cellar.",
        "default": "cellar",
        "type": "string",
        "enum": ["cellar"],
    }
    assert to_json(Cellar())["lamp"]["watts"] == 5.0


@pytest.mark.parametrize("method", METHODS)
def test_the_schema_of_a_method_is_valid_and_accepts_its_defaults(method: str) -> None:
    schema = json_schema(METHODS[method].settings)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert json.loads(json.dumps(schema)) == schema
    jsonschema.validate(to_json(METHODS[method].settings()), schema)


def leaves(schema: Any, path: Any = ()) -> Any:
    for name, part in schema["properties"].items():
        if "properties" in part:
            yield from leaves(part, (*path, name))
        elif "properties" not in part.get("items", {}) and name != "preset":
            yield (*path, name), part


def nested(path: Any, value: Any) -> Any:
    for name in reversed(path):
        value = {name: value}
    return value


def wrong_values(part: Any) -> Any:
    kinds = part["type"] if isinstance(part["type"], list) else [part["type"]]
    yield {}
    if "null" not in kinds:
        yield None
    if "enum" in part or "boolean" in kinds:
        yield from ("no such choice", 1)
    if "integer" in kinds:
        yield 9.5
    if "array" in kinds:
        yield [part["items"]["minimum"]] * (part["minItems"] - 1)
        yield [part["items"]["minimum"] - 1] * part["minItems"]
    if "integer" in kinds or "number" in kinds:
        yield from ("1", True, part["maximum"] + 1 if "maximum" in part else part["exclusiveMaximum"])
        yield part["minimum"] - 1 if "minimum" in part else part["exclusiveMinimum"]


def own_leaves(method: Any) -> Any:
    """Return the leaves that no earlier method of the list has in the same form, but for the default."""

    def described(name: Any) -> Any:
        found = leaves(json_schema(METHODS[name].settings))
        return {path: {key: value for key, value in part.items() if key != "default"} for path, part in found}

    names = list(METHODS)
    before = [described(name) for name in names[: names.index(method)]]
    return [
        (path, part) for path, part in described(method).items() if all(other.get(path) != part for other in before)
    ]


@pytest.mark.parametrize("method", METHODS)
def test_the_schema_alone_refuses_the_violations_of_every_single_field(method: str) -> None:
    validator = jsonschema.Draft202012Validator(json_schema(METHODS[method].settings))
    tried = 0
    for path, part in own_leaves(method):
        assert part["description"].endswith("."), path
        for value in wrong_values(part):
            assert not validator.is_valid(nested(path, value)), (path, value)
            with pytest.raises(InvalidConfiguration) as caught:
                methods.resolve(method, nested(path, value))
            fields = {violation.field.partition("[")[0] for violation in caught.value.violations}
            assert fields == {".".join(path)}, (path, value)
            tried += 1
    assert tried > (150 if method == "simclr" else 1)
    assert not validator.is_valid({"views": {"blurr": {}}})
