"""The catalogue of the torch side: methods with the schemas of their configurations, backbones and devices.

The front has no torch. It reads the catalogue from what the worker prints (see `describe`), or from a file.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from manyview_server.configuration import InvalidConfiguration, Violation, resolution
from manyview_server.configuration.schema import Json, Schema
from manyview_server.configuration.violations import unknown
from manyview_server.errors import InvalidArgument


class CatalogueError(Exception):
    """There is no catalogue, or it lacks the device that the operator asked for. The server does not start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device to train on: "cpu" or "cuda:0"."""

    name: str
    description: str
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A way to train. `schema` is the JSON Schema of its configuration, each field with its default."""

    name: str
    title: str
    paper: str
    schema: Schema


@dataclass(frozen=True, slots=True, kw_only=True)
class Backbone:
    """A network to train or to embed with."""

    name: str
    feature_dim: int
    num_parameters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginProblem:
    """A plugin that is left out: `package` registers it in a `group` of entry points, and `problem` says why."""

    group: str
    name: str
    package: str
    problem: str
    traceback: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """Everything that the torch side offers. `versions` names its libraries."""

    versions: dict[str, str]
    devices: tuple[Device, ...]
    methods: tuple[Method, ...]
    backbones: tuple[Backbone, ...]
    plugin_errors: tuple[PluginProblem, ...] = ()
    # It lacks all plugins, because describing failed with them.
    without_plugins: bool = False

    @classmethod
    def parse(cls, text: str) -> Catalogue:
        """Read what the worker prints. Raises CatalogueError."""
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
        """Return JSON values that `parse` reads."""
        return dataclasses.asdict(self)

    def method(self, name: str) -> Method:
        """Return the method of that name.

        Raises:
            InvalidArgument: FIELD_INVALID for field "method", with the nearest known one.
        """
        for method in self.methods:
            if method.name == name:
                return method
        raise InvalidArgument.of(unknown("method", name, [method.name for method in self.methods]))

    def device(self, name: str) -> Device:
        """Return the device of a name that `choose_devices` returned."""
        return next(device for device in self.devices if device.name == name)

    def choose_devices(self, wanted: str) -> tuple[str, ...]:
        """Return the devices to train on: "auto" is every GPU, or the CPU if there is no GPU; "cuda" is every GPU.

        Raises:
            CatalogueError: there is no such device.
        """
        names = tuple(device.name for device in self.devices)
        gpus = tuple(name for name in names if name.startswith("cuda"))
        found = {"auto": gpus or names[:1], "cuda": gpus}.get(wanted, tuple(n for n in names if n == wanted))
        if not found:
            raise CatalogueError(f"there is no device {wanted!r}; there is {', '.join(names) or 'none at all'}")
        return found

    def resolve(
        self, method: str, overrides: Mapping[str, Json], base: Mapping[str, Json] | None = None
    ) -> dict[str, Json]:
        """Return the complete configuration; see `resolution.resolve`. Call it off the event loop.

        Raises:
            InvalidArgument: FIELD_INVALID with every violation, its field below "config".
        """
        schema = self.method(method).schema
        try:
            return resolution.resolve(schema, overrides, base)
        except InvalidConfiguration as error:
            raise _refusal(error.violations) from error

    def check_continuation(self, method: str, before: Mapping[str, Json], after: Mapping[str, Json]) -> None:
        """Check `after`, the configuration of a run that continues from a checkpoint of a run with `before`.

        Raises:
            InvalidArgument: FIELD_INVALID with every field that differs and shapes what a checkpoint holds.
        """
        if found := resolution.check_continuation(self.method(method).schema, before, after):
            raise _refusal(found)


def _refusal(violations: Iterable[Violation]) -> InvalidArgument:
    return InvalidArgument.of(
        *(Violation(field=f"config.{v.field}".rstrip("."), description=v.description) for v in violations)
    )
