"""The parts that all commands share: three options, the client that they describe, and the output of values."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from manyview._progress.display import stream_for
from manyview._progress.status_line import StatusLine

if TYPE_CHECKING:
    from manyview import Client, NotFound, Progress

Target = Annotated[
    str | None,
    typer.Option(
        "--target", envvar="MANYVIEW_TARGET", help="Address of the server, host:port.", show_default="localhost:50051"
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token", envvar="MANYVIEW_TOKEN", help="Bearer token of the server.", show_envvar=True, show_default=False
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@contextmanager
def connect(target: str | None, token: str | None, doing: str | None, *, asks: bool = True) -> Iterator[Client]:
    """Yield a client for one command. If a name does not exist, the error lists the names that do.

    On a terminal, a line says that the command waits for the server, and then what it is `doing` until the block ends,
    so the block must print nothing. A command that prints sets `doing` to None, and must say itself what it waits for.
    With `asks` False, the server is not called before the block begins, and waiting for it is all that the block does.
    """
    stream = stream_for(None)
    if stream is None:
        with _client(target, token) as client:
            yield client
        return
    with ExitStack() as stack:
        waiting = stack.enter_context(ExitStack())
        line = waiting.enter_context(StatusLine(stream, "manyview", "connecting"))
        client = stack.enter_context(_client(target, token))
        line.show(f"waiting for {client.target}")
        if asks:
            _ = client._info  # every command needs the server, and many need its limits
        if doing is None:
            waiting.close()
        elif doing:
            line.show(doing)
        yield client


@contextmanager
def _client(target: str | None, token: str | None) -> Iterator[Client]:
    from manyview import Client, NotFound

    with Client(target, token=token) as client:
        try:
            yield client
        except NotFound as error:
            known = [] if "did you mean" in error.message else _known(client, error)
            if known:
                error.add_note("known: " + ", ".join(known[:20]))
            raise


def _known(client: Client, error: NotFound) -> list[str]:
    from manyview import ManyviewError

    try:
        if "DATASET" in error.reason:
            return [dataset.id for dataset in client.datasets()]
        if "JOB" in error.reason:
            return [job.id for job in client.jobs()]
        if "MODEL" in error.reason or "BACKBONE" in error.reason:
            return [model.name for model in client.models()]
    except ManyviewError:
        return []  # the first error says more
    return []


def print_json(value: Any, *, sort_keys: bool = False) -> None:
    """Print a value of the SDK as indented JSON."""
    typer.echo(json_text(plain(value), indent=2, sort_keys=sort_keys))


def json_text(value: Any, *, indent: int | None = None, sort_keys: bool = False) -> str:
    """Return a value as JSON. Times are in UTC, in the form 2026-11-28T09:00:00.250000Z."""
    return json.dumps(value, indent=indent, default=_json_value, sort_keys=sort_keys)


def _json_value(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return str(value)


def plain(value: Any) -> Any:
    """Return dataclasses as dicts, and everything else unchanged."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows in aligned columns, which other tools can cut and sort."""
    cells = [list(columns), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    for row in cells:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def steps(progress: Progress) -> str:
    """Return how far a job is, as in "516/688". Before its first step, a job does not know how many steps it has."""
    if progress.num_steps:
        return f"{progress.step}/{progress.num_steps}"
    return str(progress.step) if progress.step else "-"


def megabytes(num_bytes: float) -> str:
    """Return a size as text in MB."""
    return f"{num_bytes / 1e6:.1f} MB"
