"""Short forms of a configuration, spelled out, and rules between its fields: pure functions of JSON values.

A JSON Schema with ``x-presets`` describes an object with a list of alike items. The list can be given whole; begun from
a preset's name; changed in all items at once, by an item's field beside the list; or changed in one item, by its index
in the place of a list:

    {"preset": "byol", "blur": {"probability": 0}, "pipelines": {"1": {"solarize": {"probability": 0.1}}}}

A number of rows with ``x-width`` can be given as [rows, width], where the width has to be that field's value.

Nothing of this is left in a resolved configuration, which lists every item in full. An object with ``x-group`` has a
property for each plugin of that group of entry points; a resolved one holds those that are not all as by default.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeGuard

Json = Any

Refuse = Callable[[str, Json, str], None]
"""Told of a field, its value, and what is wrong with it."""

Check = Callable[[str, Mapping[str, Json]], bool]
"""Whether fields of an item, given at this path for all items, are right; it tells by itself what is not."""


def merged(base: Mapping[str, Json], changes: Mapping[str, Json]) -> dict[str, Json]:
    """`base` with `changes`, nested objects alike."""
    result = dict(base)
    for name, value in changes.items():
        nested = isinstance(value, Mapping) and isinstance(result.get(name), Mapping)
        result[name] = merged(result[name], value) if nested else value
    return result


def spelled_out(
    schema: Json, base: Mapping[str, Json], given: Mapping[str, Json], refuse: Refuse, check: Check, path: str = ""
) -> dict[str, Json]:
    """`given` without short forms, where what it does not say is as in `base`, a configuration in full."""
    result: dict[str, Json] = {}
    for name, value in given.items():
        field = schema["properties"].get(name, {})
        if "x-width" in field and _is_pair(value):
            result[name] = value[0]
        elif not isinstance(value, Mapping) or "properties" not in field:
            result[name] = value
        elif "x-presets" in field:
            result[name] = _list_in_full(field, base[name], value, refuse, check, f"{path}{name}.")
        else:
            result[name] = spelled_out(field, base.get(name) or {}, value, refuse, check, f"{path}{name}.")
    return result


def of_older_release(schema: Json, defaults: Mapping[str, Json], stored: Mapping[str, Json]) -> dict[str, Json]:
    """Return a stored configuration in today's form: a release older than pipelines wrote fields beside the list.

    Such fields held for every view, like the short form for all items. Nothing is checked here.
    """
    return spelled_out(schema, defaults, stored, lambda *_: None, lambda *_: True)


def _list_in_full(
    schema: Json, base: Mapping[str, Json], given: Mapping[str, Json], refuse: Refuse, check: Check, path: str
) -> dict[str, Json]:
    name, presets = schema["x-list"], schema["x-presets"]
    rest = {key: value for key, value in given.items() if not _is_short(schema, key)}
    items = base[name]
    if "preset" in given:
        preset = given["preset"]
        if preset not in presets if isinstance(preset, str) else True:
            refuse(f"{path}preset", preset, f"must be one of {', '.join(map(repr, presets))}")
        elif isinstance(given.get(name), list):
            refuse(f"{path}preset", preset, f"has no effect where {path}{name} are given")
        else:
            items = presets[preset]
    if isinstance(given.get(name), Mapping):
        items = _changed_by_index(items, given[name], refuse, f"{path}{name}")
    elif name in given:
        items = given[name]
    for_all = {key: value for key, value in given.items() if _is_short(schema, key) and key != "preset"}
    changes = {key: value for key, value in for_all.items() if check(path, {key: value})}
    if isinstance(items, list):
        items = [merged(item, changes) if isinstance(item, Mapping) else item for item in items]
    return {**rest, name: items}


def _changed_by_index(items: list[Json], changes: Mapping[str, Json], refuse: Refuse, path: str) -> list[Json]:
    result = list(items)
    for index, value in changes.items():
        if not index.isdecimal() or int(index) >= len(items):
            refuse(f"{path}.{index}", value, f"is not there; there are 0 to {len(items) - 1}, or give a list")
        elif isinstance(value, Mapping):
            result[int(index)] = merged(items[int(index)], value)
        else:
            refuse(f"{path}.{index}", value, "must be an object")
    return result


def broken_rules(schema: Json, given: Json, resolved: Json, path: str = "") -> Iterator[tuple[str, Json, str]]:
    """(field, value, message) of each rule between fields that `resolved` breaks, where `given` is what was asked for.

    A value that was given, and is not the default, must have an effect: the fields that it needs are not zero, and what
    it is only for is chosen. And bounds that are other fields hold.
    """
    if "x-presets" in schema:
        yield from _broken_in_list(schema, given, resolved, path)
        return
    for name, field in schema["properties"].items():
        if "x-group" in schema and name not in resolved:
            continue
        where, value, asked = f"{path}{name}", resolved[name], given.get(name) if isinstance(given, Mapping) else None
        if "properties" in field:
            yield from broken_rules(field, asked, value, f"{where}.")
            continue
        for other in field.get("x-needs", ()):
            if asked is not None and value != field["default"] and resolved[other] == 0:
                yield where, value, f"has no effect while {path}{other} is {resolved[other]:g}"
        for other, choices in field.get("x-only", {}).items():
            if asked is not None and value != field["default"] and resolved[other] not in choices:
                yield where, value, f"has no effect while {path}{other} is {resolved[other]!r}"
        if "x-width" in field and _is_pair(asked) and asked[1] != (width := resolved[field["x-width"]]):
            yield where, asked, f"its second number must be {path}{field['x-width']}, which is {width}"
        for key, words in (("x-at-most", "at most"), ("x-at-least", "at least")):
            if key in field and _is_beyond(key, value, bound := resolved[field[key]]):
                yield where, value, f"must be {words} {path}{field[key]}, which is {bound:g}"


def _is_pair(value: Json) -> TypeGuard[Sequence[Json]]:
    return isinstance(value, list | tuple) and len(value) == 2


def _is_beyond(key: str, value: Json, bound: Json) -> bool:
    if value is None or bound is None:
        return False
    return bool(value > bound if key == "x-at-most" else value < bound)


def _broken_in_list(schema: Json, given: Json, resolved: Json, path: str) -> Iterator[tuple[str, Json, str]]:
    name, given = schema["x-list"], given or {}
    items, asked = resolved[name], given.get(name)
    for_all = {key: value for key, value in given.items() if _is_short(schema, key) and key != "preset"}
    told: dict[str, list[tuple[str, Json, str]]] = {}
    for index, item in enumerate(items):
        own = asked.get(str(index)) if isinstance(asked, Mapping) else asked[index] if asked else None
        item_schema = schema["properties"][name]["items"]
        for field, value, message in broken_rules(item_schema, own, item, f"{path}{name}[{index}]."):
            short = path + field.removeprefix(f"{path}{name}[{index}].")
            if short.removeprefix(path).split(".")[0] in for_all:
                message = message.replace(f"{path}{name}[{index}].", path)
                told.setdefault(short, []).append((short, value, message))
            else:
                yield field, value, message
        for field, value, message in broken_rules(item_schema, for_all, item, path):
            told.setdefault(field, []).append((field, value, message))
    for found in told.values():
        # What is set for all items needs an effect in one of them; a bound holds in each.
        if "no effect" not in found[0][2] or len(found) == len(items):
            yield found[0]
    yield from broken_rules(
        {"properties": {key: field for key, field in schema["properties"].items() if key in resolved and key != name}},
        given,
        resolved,
        path,
    )


def not_installed(name: str, known: Iterable[str], group: str) -> str:
    """What is wrong with a name that no plugin of `group` has."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}" if known else "none is installed"
    return f"is no plugin that is installed on the server (entry points {group!r}); {hint}"


def _is_short(schema: Json, name: str) -> bool:
    return bool(schema["properties"].get(name, {}).get("x-short"))
