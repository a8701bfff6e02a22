"""The settings of the server, and their one reader.

Flags win over MANYVIEW_SERVER_* variables, those over a TOML file, and that over defaults. An unknown setting is always
refused, so that a misspelt name is an error and not a silent default.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from manyview_server.image_header import MAX_PIXELS, MAX_SIDE

ENV_PREFIX = "MANYVIEW_SERVER_"
MIB = 1 << 20
GIB = 1 << 30


class SettingsError(ValueError):
    """A setting is unknown, missing or out of range. `str()` names it."""


class ServeSettings(BaseSettings):
    """The settings of `manyview-server serve`."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        extra="forbid",
        frozen=True,
        cli_prog_name="manyview-server serve",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_avoid_json=True,
    )

    listen: str = Field("127.0.0.1:50051", description="host:port or unix:PATH to serve on; port 0 takes a free one")
    data: Path = Field(description="directory for everything that the server keeps; created if it is missing")
    accept_mismatched_database: bool = Field(
        False,
        description="start although the database does not match the data, and move data that it does not know to "
        "set-aside/",
    )
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N")
    fork_workers: str = Field(
        "auto",
        pattern=r"^(auto|on|off)$",
        description="start workers as forks of one process that keeps torch in memory; auto: with 2 GiB of memory",
    )
    measure_steps: bool = Field(
        True,
        description="measure a step before a job is created, to estimate its time and to choose what it leaves open",
    )
    exit_with_parent: bool = Field(
        False, description="drain and exit when the process that started the server has ended"
    )
    tls_cert: Path | None = Field(None, description="certificate chain in PEM; needs --tls-key")
    tls_key: Path | None = Field(None, description="private key in PEM; needs --tls-cert")
    token_file: Path | None = Field(None, description="file whose first line is the token that callers must send")
    log_level: str = Field("info", pattern=r"^(debug|info|warning|error)$", description="debug, info, warning or error")
    drain_s: float = Field(
        25.0, ge=1, le=600, description="seconds in which open calls must end; trainers have four fifths of them"
    )
    trainer_silence_s: float = Field(
        30.0, ge=3, description="seconds without a message after which a trainer is replaced"
    )
    trainer_step_s: float = Field(
        600.0, ge=1, description="seconds after which a step counts as hanging, if all earlier steps were faster"
    )
    decode_cpu_s: float = Field(
        10.0,
        ge=0.1,
        le=600,
        description="most CPU seconds to decode one image; an image that takes longer is never decoded again",
    )
    heartbeat_s: float = Field(
        10.0,
        gt=0,
        le=60,
        description="seconds of silence after which a subscription or a followed log gets a heartbeat",
    )
    keepalive_s: float = Field(20.0, ge=1, le=3600, description="seconds of silence before a connection is pinged")
    keepalive_timeout_s: float = Field(
        10.0, ge=1, le=600, description="seconds to wait for the answer to a ping before the connection is closed"
    )
    max_message_bytes: int = Field(36 * MIB, ge=MIB, le=512 * MIB, description="largest message of a call")
    max_image_bytes: int = Field(
        32 * MIB, ge=1024, description="largest image file; must be less than --max-message-bytes"
    )
    max_image_pixels: int = Field(
        64_000_000, ge=1, le=MAX_PIXELS, description="most pixels of an image, as its header states"
    )
    max_image_side: int = Field(16_384, ge=1, le=MAX_SIDE, description="longest side of an image in pixels")
    max_batch_images: int = Field(256, ge=1, le=4096, description="most images of a batch")
    embedding_cache_bytes: int = Field(
        16 * GIB, ge=MIB, description="most bytes on disk for embeddings of data sets, which can be computed again"
    )
    embedding_table_type: str = Field(
        "float32",
        pattern=r"^(float32|float16)$",
        description="number format of the embeddings of data sets on disk; float16 takes half the room",
    )
    image_cache_bytes: int | None = Field(
        None,
        ge=0,
        description="most bytes of memory for the decoded images of a training; without it a third of the device's, "
        "and beside a GPU half of what is available",
    )
    upload_window_batches: int = Field(8, ge=1, le=64, description="batches of an upload that may be unacknowledged")
    upload_window_bytes: int = Field(16 * MIB, ge=MIB, description="bytes of an upload that may be unacknowledged")
    embed_window_batches: int = Field(4, ge=1, le=64, description="batches of an embed stream that may be unanswered")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("set both tls_cert and tls_key, or neither")
        if self.max_image_bytes >= self.max_message_bytes:
            raise ValueError(
                f"max_image_bytes ({self.max_image_bytes:,}) must be less than max_message_bytes "
                f"({self.max_message_bytes:,}), because an image travels inside a message"
            )
        return self

    @classmethod
    def load(cls, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> ServeSettings:
        """Read settings from the command line, the environment, and the file that `--config` or the environment names.

        Raises SettingsError. An unknown flag and --help end the process, as argparse does.
        """
        environ = dict(os.environ if environment is None else environment)
        config, flags = _config_file(list(arguments), environ.pop(f"{ENV_PREFIX}CONFIG", ""))
        _refuse_unknown_variables(environ, cls.model_fields)
        from_file = _read_file(config) if config else {}

        class Layered(cls):  # type: ignore[valid-type, misc]
            @classmethod
            def settings_customise_sources(
                cls, settings_cls: type[BaseSettings], **_: Any
            ) -> tuple[PydanticBaseSettingsSource, ...]:
                return (
                    CliSettingsSource(settings_cls, cli_parse_args=flags),
                    _Variables(settings_cls, environ),
                    InitSettingsSource(settings_cls, init_kwargs=from_file),
                )

        try:
            return cls.model_validate(Layered().model_dump())
        except ValidationError as error:
            raise SettingsError("; ".join(_sentence(detail) for detail in error.errors())) from error


class _Variables(EnvSettingsSource):
    """Reads settings from a given environment."""

    def __init__(self, settings_cls: type[BaseSettings], environ: Mapping[str, str]) -> None:
        self._environ = {name.lower(): value for name, value in environ.items()}
        super().__init__(settings_cls)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return self._environ


def _config_file(arguments: list[str], default: str) -> tuple[str, list[str]]:
    """Return the value of --config, and the other arguments."""
    rest: list[str] = []
    config = default
    remaining = iter(arguments)
    for argument in remaining:
        if argument == "--config":
            config = next(remaining, "")
            if not config:
                raise SettingsError("--config needs the path of a TOML file")
        elif argument.startswith("--config="):
            config = argument.removeprefix("--config=")
        else:
            rest.append(argument)
    return config, rest


def _read_file(path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text())
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from error


def _sentence(detail: ErrorDetails) -> str:
    name = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "missing":
        return f"{name} is required: set --{name.replace('_', '-')}, {ENV_PREFIX}{name.upper()}, or {name} in --config"
    given = "" if detail["type"] == "value_error" else f" (given: {detail['input']!r})"
    return f"{name + ': ' if name else ''}{detail['msg']}{given}"


def _refuse_unknown_variables(environ: Mapping[str, str], fields: Mapping[str, object]) -> None:
    known = {f"{ENV_PREFIX}{name.upper()}" for name in fields}
    unknown = sorted(name for name in environ if name.startswith(ENV_PREFIX) and name not in known)
    if unknown:
        raise SettingsError(f"unknown settings in the environment: {', '.join(unknown)}")
