"""The last words of a command that Ctrl-C ends: what keeps running, what is kept, and how to continue."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import typer
from typer.core import TyperCommand

STATUS = 130
"""The exit status of a command that Ctrl-C ended, as shells expect it."""

Parameters = Mapping[str, Any]


class Interruptible(TyperCommand):
    """A command that explains itself when Ctrl-C ends it."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo(text(ctx.info_name or "", ctx.params), err=True)
            raise typer.Exit(STATUS) from None


def text(command: str, parameters: Parameters) -> str:
    """Return the text for a user who interrupts this command."""
    return f"stopped: {_TEXTS.get(command, _anything)(parameters)}"


def _anything(_: Parameters) -> str:
    return "the server finishes calls that it has received"


def _upload(parameters: Parameters) -> str:
    return (
        f"the images that were acknowledged are kept in {parameters.get('dataset')}\n"
        "  run the same command again to send the others"
    )


def _embed(parameters: Parameters) -> str:
    if parameters.get("dataset") is None:
        return f"{parameters.get('out')} was not written; run the same command again"
    return f"{parameters.get('out')} was not written\n  {_FASTER}"


def _asked(_: Parameters) -> str:
    return f"there is no answer\n  {_FASTER}"


def _train(_: Parameters) -> str:
    return "a job that was created continues; `manyview jobs` lists it"


def _logs(parameters: Parameters) -> str:
    return f"the job continues\n  read its log again: manyview logs {parameters.get('job')} --follow"


def _export(parameters: Parameters) -> str:
    return f"{parameters.get('path')} was not written; run the same command again"


_FASTER = "the server keeps the embeddings that it has made: the same command continues from there"
_TEXTS: Mapping[str, Callable[[Parameters], str]] = {
    "upload": _upload,
    "embed": _embed,
    "select": _asked,
    "neighbors": _asked,
    "duplicates": _asked,
    "train": _train,
    "logs": _logs,
    "export": _export,
}
