"""The command that watches a job."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from manyview._cli import interrupted
from manyview._cli.connection import Json, Target, Token, connect, json_text
from manyview._cli.watching.lines import line
from manyview._progress.report import reporting

if TYPE_CHECKING:
    from manyview import Client, Event, Job

# The time limit for the last look at a job that has ended.
_ENDED_S = 30.0


def watch(
    job: Annotated[str, typer.Argument(help="Train job.")],
    after: Annotated[int, typer.Option(help="Show only events after this sequence number.", min=0)] = 0,
    shows_all: Annotated[
        bool, typer.Option("--all", help="Show all values, not only the main ones. The key a switches.")
    ] = False,
    target: Target = None,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """Watch a job until it ends: its state, progress, scalars and log. The exit status is 1 unless it succeeds.

    Ctrl-C stops watching, and the job continues."""
    with connect(target, token, None) as client:
        show(find(client, job), after=after, shows_all=shows_all, as_json=as_json)


def find(client: Client, name: str) -> Job:
    """Return a job. Until it is known, a line says that the command looks for it."""
    with reporting(None, name, "looking for the job"):
        return client.job(name)


def show(job: Job, *, after: int = 0, shows_all: bool = False, as_json: bool = False) -> None:
    """Show the job's events until it ends. Raises TrainJobFailed or TrainJobCancelled unless it succeeds."""
    try:
        _follow(job, after, shows_all, as_json)
    except KeyboardInterrupt:
        typer.echo(goes_on(job), err=True)
        raise typer.Exit(interrupted.STATUS) from None
    with reporting(None, job.id, "looking at the end of the job"):
        job.wait(timeout_s=_ENDED_S)


def _follow(job: Job, after: int, shows_all: bool, as_json: bool) -> None:
    if not as_json and sys.stdout.isatty():
        from manyview._cli.watching.session import watch_on_terminal

        watch_on_terminal(job, after, shows_all=shows_all)
        return
    with reporting(None, job.id, "waiting for events") as report:
        for event in job.metrics(after):
            with report.hidden():
                typer.echo(json_text(_fields(event)) if as_json else line(event))


def goes_on(job: Job) -> str:
    """Return the text for a user who stops watching."""
    info = job.info
    steps = f", step {info.progress.step:,} of {info.progress.num_steps:,}" if info.progress.num_steps else ""
    return (
        f"stopped watching; {info.name} continues ({info.state}{steps})\n"
        f"  watch it again: manyview watch {info.id}\n"
        f"  stop it:        manyview pause {info.id}   or   manyview cancel {info.id}"
    )


def _fields(event: Event) -> dict[str, Any]:
    names = ("sequence", "kind", "time", "attempt", "step", "epoch", "values")
    return {name: getattr(event, name) for name in names}
