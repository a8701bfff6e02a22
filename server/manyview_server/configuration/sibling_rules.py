"""Rules between a field and its siblings: what it needs to take effect, and what bounds it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from manyview_server.configuration.schema import Json, Schema
from manyview_server.configuration.shorthand import for_all_items, is_rows_and_width
from manyview_server.configuration.violations import Violation

Given = Mapping[str, Json]


@dataclass(frozen=True)
class _Rule:
    check: Callable[[Schema, str, Json, Given, str], Iterator[Violation]]
    """(schema of a field, its name, what was given for it, the complete object around it, path of that object)."""
    quantifier: Callable[[Iterable[bool]], bool]
    """A field that is given for all items of a list is wrong if it is wrong in `any` or in `all` of them."""


def check_siblings(schema: Schema, given: Given, complete: Given) -> Iterator[Violation]:
    """Yield the rules between siblings that the `complete` configuration breaks.

    A value that was `given`, and is not the default, must have an effect. Bounds hold for every value.
    """
    for rule in (_Rule(_without_effect, all), _Rule(_out_of_bounds, any)):
        yield from _walk(rule, schema, given, complete, "")


def _walk(rule: _Rule, schema: Schema, given: Json, complete: Given, path: str) -> Iterator[Violation]:
    given = given if isinstance(given, Mapping) else {}
    for name, field in schema["properties"].items():
        if name not in complete:
            continue
        if "properties" in field:
            yield from _walk(rule, field, given.get(name), complete[name], f"{path}{name}.")
            continue
        yield from rule.check(field, name, given.get(name), complete, path)
        if "properties" in field.get("items", {}):
            for_all = for_all_items(schema, given)
            yield from _walk_items(rule, field["items"], given.get(name), for_all, complete[name], path, name)


def _walk_items(
    rule: _Rule, schema: Schema, given: Json, for_all: Given, items: list[Given], path: str, name: str
) -> Iterator[Violation]:
    """Check each item by what was given for it, at its own path, and by what was given for all, beside the list."""
    shared: list[dict[str, Violation]] = []
    for index, item in enumerate(items):
        own = given.get(str(index)) if isinstance(given, Mapping) else given[index] if given else None
        place = f"{path}{name}[{index}]."
        for violation in _walk(rule, schema, own, item, place):
            if _first_name(violation, place) not in for_all:
                yield violation
        found = _walk(rule, schema, for_all, item, path)
        shared.append({violation.field: violation for violation in found if _first_name(violation, path) in for_all})
    for violation in {field: violation for each in shared for field, violation in each.items()}.values():
        if rule.quantifier(violation.field in each for each in shared):
            yield violation


def _first_name(violation: Violation, path: str) -> str:
    return violation.field.removeprefix(path).partition(".")[0]


def _without_effect(field: Schema, name: str, given: Json, siblings: Given, path: str) -> Iterator[Violation]:
    value = siblings[name]
    if given is None or value == field.get("default"):
        return
    for other in field.get("x-needs", ()):
        if siblings[other] == 0:
            yield Violation.of(path + name, value, f"has no effect while {path}{other} is {siblings[other]:g}")
    for other, choices in field.get("x-only", {}).items():
        if siblings[other] not in choices:
            yield Violation.of(path + name, value, f"has no effect while {path}{other} is {siblings[other]!r}")


def _out_of_bounds(field: Schema, name: str, given: Json, siblings: Given, path: str) -> Iterator[Violation]:
    value = siblings[name]
    if "x-width" in field and is_rows_and_width(given) and given[1] != (width := siblings[field["x-width"]]):
        text = f"the second number must be {path}{field['x-width']}, which is {width}"
        yield Violation.of(path + name, given, text)
    if value is None:
        return
    if "x-at-most" in field and (most := siblings[field["x-at-most"]]) is not None and value > most:
        yield Violation.of(path + name, value, f"must be at most {path}{field['x-at-most']}, which is {most:g}")
    if "x-at-least" in field and (least := siblings[field["x-at-least"]]) is not None and value < least:
        yield Violation.of(path + name, value, f"must be at least {path}{field['x-at-least']}, which is {least:g}")
