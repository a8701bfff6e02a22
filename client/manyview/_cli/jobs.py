"""Training: train, jobs, logs, pause, resume, cancel."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from manyview._cli.connection import Json, Target, Token, connect, print_json, print_table
from manyview._cli.watch import show

if TYPE_CHECKING:
    from manyview import TrainJobInfo


def train(
    dataset: Annotated[
        str | None, typer.Argument(help="Data set to train on; by default that of the other job.")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="See `manyview methods`; simclr by default, or that of the other job.")
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="resnet18, …")] = None,
    epochs: Annotated[int | None, typer.Option(min=1)] = None,
    config: Annotated[Path | None, typer.Option(help="Configuration as .json or .toml.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="One parameter, as views.blur.probability=0; repeatable.")
    ] = None,
    job_id: Annotated[str | None, typer.Option(help="Id of the job.")] = None,
    clone_from: Annotated[
        str | None, typer.Option(metavar="JOB", help="Begin anew with this job's data set and configuration.")
    ] = None,
    continue_from: Annotated[
        str | None, typer.Option(metavar="JOB|CHECKPOINT", help="Go on from here, with that job's configuration.")
    ] = None,
    follow: Annotated[
        int | None,
        typer.Option(metavar="MIN_IMAGES", help="Start at so many images and adopt what is added; set max_steps."),
    ] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Show the whole configuration; create nothing.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Watch the job until it ends.")] = False,
    target: Target = None,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """Train a model on a data set. What --set says counts more than --config."""
    if dataset is None and clone_from is None and continue_from is None:
        raise typer.BadParameter("needed, unless --clone-from or --continue-from names a job", param_hint="DATASET")
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
    }
    with connect(target, token) as client:
        if print_config:
            print_json(client.resolve_config(**wanted), sort_keys=True)  # a Struct has no order
            return
        job = client.train(**wanted, job_id=job_id)
        if watch:
            show(job, as_json=as_json)
        elif as_json:
            print_json(job.info)
        else:
            typer.echo(f"{job.name} {job.state}; watch it with: manyview watch {job.id}")


def read_config(path: Path) -> dict[str, Any]:
    """A configuration file as a dict. Raises ValueError for another suffix or content."""
    if path.suffix not in (".json", ".toml"):
        raise ValueError(f"{path}: a configuration is a .json or .toml file")
    try:
        config = json.loads(path.read_text()) if path.suffix == ".json" else tomllib.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path}: expected an object, found {type(config).__name__}")
    return config


def assign(config: dict[str, Any], setting: str) -> None:
    """Set `a.b=value` in a nested dict; the value is JSON, or else text."""
    path, equals, text = setting.partition("=")
    *parents, name = path.split(".")
    if not equals or not all((*parents, name)):
        raise ValueError(f"--set {setting}: expected NAME=VALUE, as in views.blur.probability=0")
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    for parent in parents:
        config = config.setdefault(parent, {})
        if not isinstance(config, dict):
            raise ValueError(f"--set {setting}: {parent} has a value already, it cannot have {name}")
    config[name] = value


def jobs(target: Target = None, token: Token = None, as_json: Json = False) -> None:
    """List the train jobs, newest first."""
    with connect(target, token) as client:
        found = [job.info for job in client.jobs()]
    if as_json:
        print_json(found)
        return
    rows = [
        (
            info.id,
            info.state,
            str(info.config.get("method", "")) or "-",
            info.dataset.removeprefix("datasets/"),
            f"{info.progress.step}/{info.progress.num_steps}",
            info.failure.reason if info.failure else "",
        )
        for info in found
    ]
    print_table(("JOB", "STATE", "METHOD", "DATASET", "STEP", "FAILURE"), rows)


def logs(
    job: Annotated[str, typer.Argument(help="Train job.")],
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=10_000)] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
    target: Target = None,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """Print a job's log."""
    with connect(target, token) as client:
        for line in client.job(job).logs(lines, follow=follow):
            if as_json:
                fields = {"sequence": line.sequence, "time": line.time, "level": line.level, "text": line.text}
                typer.echo(json.dumps(fields, default=str))
            else:
                clock = f"{line.time:%H:%M:%S} " if line.time else ""
                typer.echo(f"{clock}{line.level:<7} {line.text}")


def pause(
    job: Annotated[str, typer.Argument(help="Train job.")],
    target: Target = None,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """Stop a job at its next step, with a checkpoint, until it is resumed."""
    with connect(target, token) as client:
        _tell(client.job(job).pause(), as_json)


def resume(
    job: Annotated[str, typer.Argument(help="Train job.")],
    target: Target = None,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """Let a paused job go on from its newest checkpoint."""
    with connect(target, token) as client:
        _tell(client.job(job).resume(), as_json)


def cancel(
    job: Annotated[str, typer.Argument(help="Train job.")],
    target: Target = None,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """Stop a job at its next step, with a checkpoint, for good."""
    with connect(target, token) as client:
        _tell(client.job(job).cancel(), as_json)


def _tell(info: TrainJobInfo, as_json: bool) -> None:
    if as_json:
        print_json(info)
    else:
        typer.echo(f"{info.name} {info.state}")
