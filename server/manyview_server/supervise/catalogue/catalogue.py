"""What the torch side offers - methods, backbones, devices - and the check of a job's configuration against it.

The front has no torch: a short-lived `describe` worker prints the catalogue as one JSON document at start.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from manyview_server.configuration import cross_field_rules, shorthand
from manyview_server.configuration.configuration_size import refuse_large
from manyview_server.configuration.schema_violations import not_finite, not_installed, refused, shown, types_of, unknown
from manyview_server.errors import InvalidArgument, Violation
from manyview_server.supervise.catalogue.plugin_packages import packages_with_plugins
from manyview_server.supervise.process import WORKER_COMMAND, WorkerProcess, describe_exit
from manyview_server.system import awake_time

Json = Any

log = logging.getLogger(__name__)


class CatalogueError(Exception):
    """The catalogue cannot be had, or lacks the device asked for. For the operator: the server does not start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """Something to train on: "cpu" or "cuda:0"."""

    name: str
    description: str
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A way to train. `schema` is the JSON Schema of its configuration, each field with its default."""

    name: str
    title: str
    paper: str
    schema: dict[str, Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backbone:
    """A network to train or to embed with."""

    name: str
    feature_dim: int
    num_parameters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginProblem:
    """Why what `package` registers in a `group` of entry points is left out."""

    group: str
    name: str
    package: str
    problem: str
    traceback: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """All of it. `versions` names the libraries of the torch side."""

    versions: dict[str, str]
    devices: tuple[Device, ...]
    methods: tuple[Method, ...]
    backbones: tuple[Backbone, ...]
    plugin_errors: tuple[PluginProblem, ...] = ()
    # Described without any plugin, since that failed with them.
    without_plugins: bool = False

    @classmethod
    def parse(cls, text: str) -> Catalogue:
        """The catalogue of `describe`'s output. Raises CatalogueError."""
        try:
            document = json.loads(text)
            return cls(
                versions=dict(document["versions"]),
                devices=tuple(Device(**device) for device in document["devices"]),
                methods=tuple(Method(**method) for method in document["methods"]),
                backbones=tuple(Backbone(**backbone) for backbone in document["backbones"]),
                plugin_errors=tuple(PluginProblem(**problem) for problem in document["plugin_errors"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise CatalogueError(f"the worker's description is not as expected: {error!r}") from error

    def to_json(self) -> dict[str, Json]:
        """What `parse` reads, as JSON values."""
        return dataclasses.asdict(self)

    def method(self, name: str) -> Method:
        """The method of that name.

        Raises:
            InvalidArgument: FIELD_INVALID for field "method", with the nearest known one.
        """
        for method in self.methods:
            if method.name == name:
                return method
        raise InvalidArgument.of(unknown("method", name, [method.name for method in self.methods]))

    def choose_devices(self, wanted: str) -> tuple[str, ...]:
        """The devices to train on: "auto" is every GPU, or the CPU where there is none; "cuda" every GPU.

        Raises:
            CatalogueError: there is no such device.
        """
        names = tuple(device.name for device in self.devices)
        gpus = tuple(name for name in names if name.startswith("cuda"))
        found = {"auto": gpus or names[:1], "cuda": gpus}.get(wanted, tuple(n for n in names if n == wanted))
        if not found:
            raise CatalogueError(f"there is no device {wanted!r}; there is {', '.join(names) or 'none at all'}")
        return found

    def refuse_changed(self, method: str, before: Mapping[str, Json], after: Mapping[str, Json]) -> None:
        """Refuse `after` as the configuration of a run that goes on from a checkpoint of a run with `before`.

        Raises:
            InvalidArgument: FIELD_INVALID with every field that differs and shapes what a checkpoint holds. A field
                that an older release did not have counts as having had its default.
        """
        schema = self.method(method).schema
        found = [
            Violation(
                field=f"config.{field}",
                description=f"must stay {was!r} in a job that goes on from a checkpoint (got {wanted!r})",
            )
            for field, was, wanted in _changed(schema, _stored(schema, before), after)
        ]
        if found:
            raise InvalidArgument.of(*found)

    def resolve(
        self,
        method: str,
        overrides: Mapping[str, Json],
        base: Mapping[str, Json] | None = None,
        *,
        prefix: str = "config.",
    ) -> dict[str, Json]:
        """The whole configuration: `overrides`, nested, over `base`, by default the defaults of `method`. Short forms
        are spelled out, and whole floats become integers.

        Takes tens of milliseconds for the largest configurations that are allowed: call it off the event loop.

        Raises:
            InvalidArgument: FIELD_INVALID with the violations; `prefix` goes before each field's dotted path.
        """
        schema = self.method(method).schema
        found: dict[str, str] = {}

        def refuse(field: str, value: Json, message: str) -> None:
            found.setdefault(field, f"{message} (got {shown(value)})")

        def is_right(path: str, fields: Mapping[str, Json]) -> bool:
            wrong = refused(_item_schema(schema, path), fields)
            found.update({path + violation.field: violation.description for violation in wrong})
            return not wrong

        whole: dict[str, Json] = _stored(schema, base or {})
        in_full = shorthand.spelled_out(schema, whole, overrides, refuse, is_right)
        refuse_large(in_full, prefix.rstrip("."))
        for violation in (*refused(schema, in_full), *not_finite(overrides), *not_installed(schema, base or {})):
            found.setdefault(violation.field, violation.description)
        if not found:
            whole = _resolve(schema, shorthand.merged(whole, in_full))
            for broken in (*shorthand.broken_rules(schema, overrides, whole), *_broken(schema, whole)):
                refuse(*broken)
        if found:
            raise InvalidArgument.of(*(Violation(field=prefix + f, description=found[f]) for f in sorted(found)))
        return whole


async def describe(command: Sequence[str] = WORKER_COMMAND, *, deadline_s: float = 300.0) -> Catalogue:
    """Run `describe` and read what it prints. Where that fails and there are plugins, once more without them.

    Raises:
        CatalogueError: it failed or took longer than `deadline_s`; the message holds the end of what it printed.
    """
    try:
        return await _describe(command, (), deadline_s)
    except CatalogueError as error:
        packages = packages_with_plugins()
        if not packages:
            raise
        catalogue = await _describe(command, ("--without-plugins",), deadline_s)
        log.error("all plugins are left out, of %s: describing them failed: %s", ", ".join(packages), error)
        return dataclasses.replace(catalogue, without_plugins=True)


async def _describe(command: Sequence[str], arguments: Sequence[str], deadline_s: float) -> Catalogue:
    try:
        process = await WorkerProcess.start(
            "describe", num_threads=1, command=command, arguments=arguments, capture_stdout=True
        )
    except OSError as error:
        raise CatalogueError(f"the worker cannot be started: {error}") from error
    try:
        status = await _exit_status(process, deadline_s)
        if status != 0:
            raise CatalogueError(f"describing failed with {describe_exit(status)}:\n{process.stderr_tail.strip()}")
        return Catalogue.parse(process.stdout)
    finally:
        await process.stop()


async def _exit_status(process: WorkerProcess, deadline_s: float) -> int:
    try:
        async with awake_time.timeout(deadline_s):
            return await process.wait()
    except TimeoutError as error:
        message = f"describing took longer than {deadline_s:g} seconds:\n{process.stderr_tail.strip()}"
        raise CatalogueError(message) from error


def _changed(
    schema: Mapping[str, Json], before: Mapping[str, Json], after: Mapping[str, Json], path: str = ""
) -> Iterator[tuple[str, Json, Json]]:
    """The fields that the schema fixes and that differ: dotted path, value before, value after."""
    for name, field in schema["properties"].items():
        was, wanted = before.get(name), after.get(name)
        if field.get("x-short"):
            continue
        if "properties" in field:
            yield from _changed(field, was or {}, wanted or {}, f"{path}{name}.")
        elif field.get("x-fixed") and was != wanted:
            yield f"{path}{name}", was, wanted


def _broken(schema: Json, config: Mapping[str, Json]) -> Iterator[cross_field_rules.Broken]:
    return cross_field_rules.broken(config, schema["x-takes"]) if "x-takes" in schema else iter(())


def _item_schema(schema: Json, path: str) -> Json:
    """Of the items of the list in the object at a dotted `path`."""
    for name in path.rstrip(".").split("."):
        schema = schema["properties"][name]
    return schema["properties"][schema["x-list"]]["items"]


def _stored(schema: Mapping[str, Json], config: Mapping[str, Json]) -> dict[str, Json]:
    """Return the whole configuration of a job that this release or an older one created."""
    defaults: dict[str, Json] = _resolve(schema, {})
    in_full: dict[str, Json] = _resolve(schema, shorthand.of_older_release(schema, defaults, config))
    return in_full


def _resolve(schema: Mapping[str, Json], value: Json) -> Json:
    """`value` with every field that it lacks, of the types that the schema names."""
    if "properties" in schema and (value is not None or "null" not in types_of(schema)):
        return _resolve_by_name(schema, value) if "x-group" in schema else _resolve_object(schema, value or {})
    if isinstance(value, list):
        return [_resolve(schema.get("items", {}), item) for item in value]
    whole = isinstance(value, float) and value.is_integer()
    return int(value) if whole and "integer" in types_of(schema) and "number" not in types_of(schema) else value


def _resolve_object(schema: Mapping[str, Json], given: Mapping[str, Json]) -> dict[str, Json]:
    return {
        name: _resolve(field, given.get(name, copy.deepcopy(field.get("default"))))
        for name, field in schema["properties"].items()
        if not field.get("x-short")
    }


def _resolve_by_name(schema: Mapping[str, Json], given: Mapping[str, Json] | None) -> dict[str, Json]:
    """Only the plugins' settings that are not all as by default: whoever has none of it need not know a plugin."""
    fields = {name: field for name, field in schema["properties"].items() if name in (given or {})}
    whole = {name: _resolve(field, (given or {})[name]) for name, field in fields.items()}
    return {name: value for name, value in whole.items() if value != _resolve(fields[name], {})}
