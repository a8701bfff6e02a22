# ruff: noqa: RUF009 - `setting` makes dataclass fields, and their defaults are frozen
from dataclasses import dataclass

import jsonschema
import pytest

from manyview_server.configuration import (
    InvalidConfiguration,
    Pattern,
    check,
    json_schema,
    resolve,
    setting,
)


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
class Range:
    low: float = setting(0.0, "From.", at_most="high")
    high: float = setting(1.0, "To.")


NAMES = ["oak"]


@dataclass(frozen=True, kw_only=True)
class Table:
    wood: str = setting("oak", "Of what.", choices=lambda: NAMES, pattern=Pattern(regex="x/[a-z]+", words="x/NAME"))
    label: str | None = setting(None, "What it says.", pattern=Pattern(regex="[A-Z]+", words="in capitals"))
    shine: int = setting(0, "How much.", only={"wood": lambda: NAMES})


def test_a_text_is_one_of_names_that_may_change_or_fits_a_pattern(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve(Table, {"wood": "x/pine", "label": "A"}) == Table(wood="x/pine", label="A")
    with pytest.raises(InvalidConfiguration, match=r"'oak' or x/NAME \(got 'oac'\); did you mean 'oak'\?"):
        resolve(Table, {"wood": "oac"})
    with pytest.raises(InvalidConfiguration, match="label: must be in capitals"):
        resolve(Table, {"label": "a"})
    for wrong in (3, "x/pine\n", "x/", "ax/b"):
        with pytest.raises(InvalidConfiguration, match="wood: must be one of"):
            resolve(Table, {"wood": wrong})
        assert not jsonschema.Draft202012Validator(json_schema(Table)).is_valid({"wood": wrong})
    with pytest.raises(InvalidConfiguration, match="shine: has no effect while wood is 'x/pine'"):
        resolve(Table, {"wood": "x/pine", "shine": 1})
    monkeypatch.setitem(globals(), "NAMES", ["oak", "ash"])
    assert resolve(Table, {"wood": "ash", "shine": 1}).shine == 1
    assert json_schema(Table)["properties"]["wood"]["anyOf"][0] == {"enum": ["oak", "ash"]}


def test_checking_an_instance_finds_nested_values_outside_their_bounds() -> None:
    assert [violation.field for violation in check(Room(lamp=Lamp(tint=(0.0, 1.0))))] == ["lamp.tint[1]"]
    assert check(Room()) == []


def test_an_instance_of_another_class_in_the_place_of_settings_is_found() -> None:
    (violation,) = check(Room(lamp={"on": True}))  # type: ignore[arg-type]
    assert str(violation) == 'lamp: must be of type Lamp (got {"on": true})'


def test_a_bound_that_is_a_sibling_is_checked_in_an_instance_too() -> None:
    assert [str(violation) for violation in check(Range(low=3.0, high=2.0))] == [
        "low: must be at most high, which is 2 (got 3)"
    ]


def test_a_changed_field_that_needs_another_one_is_found() -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        resolve(Room, {"lamp": {"on": False, "watts": 40.0}})
    assert [violation.field for violation in caught.value.violations] == ["lamp.watts"]
    assert resolve(Room, {"lamp": {"on": False}}) == Room(lamp=Lamp(on=False))
