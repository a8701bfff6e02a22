"""The program `manyview`. An error is one line on stderr, without a traceback. The exit status is 1, or 2 for wrong
usage."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from manyview import __version__
from manyview._cli import curation, images, jobs, models, preview, resources, server
from manyview._cli.interrupted import Interruptible
from manyview._cli.watching.command import watch

_HINTS = {
    "UNAVAILABLE": "Is a server running there? Set --target or $MANYVIEW_TARGET.",
    "UNAUTHENTICATED": "Set --token or $MANYVIEW_TOKEN.",
}


class ErrorsInOneLine(TyperGroup):
    """Commands whose errors are printed without a traceback if a user can act on them. A fault of our own still shows
    its traceback."""

    def invoke(self, ctx: Any) -> Any:
        from manyview import ManyviewError

        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            sys.stderr.close()  # the reader, such as `head`, has had enough
            raise typer.Exit(0) from None
        except (ManyviewError, OSError, ValueError, TypeError) as error:
            if not isinstance(error, ManyviewError) and not _is_about_input(error):
                raise
            report(error)
            raise typer.Exit(1) from None


def _is_about_input(error: BaseException) -> bool:
    """Return whether the operating system raised this exception, or the SDK itself, which words it for users."""
    if isinstance(error, OSError):
        return True
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__", "")).startswith("manyview")


def report(error: BaseException) -> None:
    """Print `error: …` to stderr, in red on a terminal, and hints below it."""
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None:
        text = f"{error.filename}: {error.strerror}"
    typer.secho(f"error: {text}", fg=typer.colors.RED, err=True)
    hints = [*getattr(error, "__notes__", ()), _HINTS.get(getattr(error, "code", ""), "")]
    for hint in filter(None, hints):
        typer.echo(f"  {hint}", err=True)


app = typer.Typer(
    name="manyview",
    cls=ErrorsInOneLine,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for command in (
    resources.create,
    images.upload,
    images.images,
    images.datasets,
    jobs.train,
    jobs.jobs,
    watch,
    jobs.logs,
    jobs.pause,
    jobs.resume,
    jobs.cancel,
    models.embed,
    curation.select,
    curation.neighbors,
    curation.duplicates,
    models.export,
    models.checkpoints,
    preview.preview,
    models.models,
    models.methods,
    resources.delete,
    server.info,
    server.health,
):
    app.command(cls=Interruptible)(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"manyview {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the client's version.")
    ] = False,
) -> None:
    """Upload unlabelled images, train a model on them, watch it learn, and get embeddings."""


def main() -> None:
    """Run the program."""
    app()
