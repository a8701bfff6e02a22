"""Commands for train jobs: train, jobs, logs, pause, resume, cancel."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from manyview._arguments import duration_s
from manyview._cli.connection import Json, Target, Token, connect, json_text, print_json, print_table, steps
from manyview._cli.watching.command import find, show
from manyview._progress.report import reporting
from manyview._types.words import JobState

if TYPE_CHECKING:
    from manyview import LogLine, TrainJobInfo


def train(
    dataset: Annotated[
        str | None, typer.Argument(help="Data set to train on. A cloned or continued job has one.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(help="Method, see `manyview methods`. Default: simclr, or that of the cloned or continued job."),
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="Backbone: resnet18, vit_tiny, timm/NAME, torchvision/NAME, …")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the data set.")] = None,
    config: Annotated[Path | None, typer.Option(help="Configuration file, .json or .toml.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Set one parameter, as in views.blur.probability=0.2; repeatable.")
    ] = None,
    job_id: Annotated[str | None, typer.Option(help="Id for the job. Default: a generated one.")] = None,
    clone_from: Annotated[
        str | None,
        typer.Option(metavar="JOB", help="Start again from step 0 with this job's data set and configuration."),
    ] = None,
    continue_from: Annotated[
        str | None,
        typer.Option(metavar="JOB|CHECKPOINT", help="Continue from this job or checkpoint, with its configuration."),
    ] = None,
    follow: Annotated[
        int | None,
        typer.Option(
            metavar="MIN_IMAGES",
            help="Start once the data set has this many images, and adopt later ones. Needs --set max_steps=…",
        ),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="Choose backbone, image size and epochs, as far as they are left open, for a job of 90s, 10m, 1.5h or "
            "2d. Default: 1h. It is a plan, not a limit: an alert says when the job will be late.",
        ),
    ] = None,
    print_config: Annotated[
        bool,
        typer.Option(
            "--print-config", help="Print the complete configuration, and on stderr the time it takes. Create no job."
        ),
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Watch the job until it ends.")] = False,
    target: Target = None,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """Train a model on a data set. --set overrides --config."""
    if dataset is None and clone_from is None and continue_from is None:
        raise typer.BadParameter("name a data set, or a job with --clone-from or --continue-from", param_hint="DATASET")
    chosen = read_config(config) if config else {}
    for setting in settings or ():
        assign(chosen, setting)
    wanted: dict[str, Any] = {
        "dataset": dataset,
        "method": method,
        "backbone": backbone,
        "epochs": epochs,
        "config": chosen,
        "clone_from": clone_from,
        "continue_from": continue_from,
        "follow": follow,
        "time_budget": duration_s("--time", time) or None,
    }
    with connect(target, token, None) as client:
        if print_config:
            planned = client.plan(**wanted)
            print_json(planned.config, sort_keys=True)  # a Struct has no order
            _print_estimate(planned)
            return
        job = client.train(**wanted, job_id=job_id)
        if watch:
            show(job, as_json=as_json)
        elif as_json:
            print_json(job.info)
        else:
            _print_estimate(job.info)
            typer.echo(f"{job.name} {job.state}; watch it with: manyview watch {job.id}")


def _print_estimate(info: TrainJobInfo) -> None:
    """Say on stderr what was chosen and how long a new job takes, so that stdout holds nothing but the answer."""
    if info.choice:
        typer.echo(info.choice, err=True)
    if info.estimate:
        typer.echo(f"time: {info.estimate.text}", err=True)


def read_config(path: Path) -> dict[str, Any]:
    """Return a configuration file as a dict. Raises ValueError for any other suffix or content."""
    if path.suffix not in (".json", ".toml"):
        raise ValueError(f"{path}: a configuration must be a .json or .toml file")
    if not path.is_file():
        raise ValueError(f"--config {path}: there is no such file")
    try:
        config = json.loads(path.read_text()) if path.suffix == ".json" else tomllib.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path}: a configuration must be an object, not {type(config).__name__}")
    return config


def assign(config: dict[str, Any], setting: str) -> None:
    """Set `a.b=value` in a nested dict. A value that is not JSON is text."""
    path, equals, text = setting.partition("=")
    *parents, name = path.split(".")
    if not equals or not all((*parents, name)):
        raise ValueError(f"--set {setting}: expected NAME=VALUE, as in views.blur.probability=0.2")
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    for parent in parents:
        config = config.setdefault(parent, {})
        if not isinstance(config, dict):
            raise ValueError(f"--set {setting}: {parent} already has a value, so it cannot have {name}")
    config[name] = value


def jobs(
    state: Annotated[
        list[str] | None,
        typer.Option("--state", help="Show only jobs in this state, such as RUNNING or FAILED; repeatable."),
    ] = None,
    target: Target = None,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """List the train jobs, newest first."""
    with connect(target, token, "listing jobs") as client:
        found = [job.info for job in client.jobs(cast(list[JobState] | None, state))]
    if as_json:
        print_json(found)
        return
    rows = [
        (
            info.id,
            info.state,
            str(info.config.get("method", "")) or "-",
            info.dataset.removeprefix("datasets/"),
            steps(info.progress),
            info.failure.reason if info.failure else "",
        )
        for info in found
    ]
    print_table(("JOB", "STATE", "METHOD", "DATASET", "STEP", "FAILURE"), rows)


def logs(
    job: Annotated[str, typer.Argument(help="Train job.")],
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=10_000, help="Newest lines to show.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing new lines until the job ends.")] = False,
    target: Target = None,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """Print a job's log."""
    with connect(target, token, None) as client:
        watched = find(client, job)
        with reporting(None, watched.id, "reading the log") as report:
            for line in watched.logs(lines, follow=follow):
                with report.hidden():
                    typer.echo(_log_line(line, as_json=as_json))
                report.say("waiting for new lines")


def _log_line(line: LogLine, *, as_json: bool) -> str:
    if as_json:
        fields = {"sequence": line.sequence, "time": line.time, "level": line.level, "text": line.text}
        return json_text(fields)
    clock = f"{line.time:%H:%M:%S} " if line.time else ""
    return f"{clock}{line.level:<7} {line.text}"


def pause(
    job: Annotated[str, typer.Argument(help="Train job.")],
    target: Target = None,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """Pause a job: it writes a checkpoint after its current step and stops until it is resumed."""
    with connect(target, token, f"pausing {job}") as client:
        info = client.job(job).pause()
    _print_state(info, as_json)


def resume(
    job: Annotated[str, typer.Argument(help="Train job.")],
    target: Target = None,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """Resume a paused job from its newest checkpoint."""
    with connect(target, token, f"resuming {job}") as client:
        info = client.job(job).resume()
    _print_state(info, as_json)


def cancel(
    job: Annotated[str, typer.Argument(help="Train job.")],
    target: Target = None,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """Cancel a job: it writes a checkpoint after its current step and stops for good."""
    with connect(target, token, f"cancelling {job}") as client:
        info = client.job(job).cancel()
    _print_state(info, as_json)


def _print_state(info: TrainJobInfo, as_json: bool) -> None:
    if as_json:
        print_json(info)
    else:
        typer.echo(f"{info.name} {info.state}")
