"""Commands that create and delete: create, delete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from manyview._arguments import did_you_mean
from manyview._cli.connection import Json, Target, Token, connect, print_json
from manyview._progress.report import reporting
from manyview._progress.words import number_of

if TYPE_CHECKING:
    from manyview import Client, Dataset, Job


def create(
    dataset: Annotated[str, typer.Argument(help="Id of the new data set: a-z, 0-9, _ and -.")],
    target: Target = None,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """Create an empty data set, for example one that a job will follow. `upload` creates its own."""
    with connect(target, token, f"creating the data set {dataset}") as client:
        made = client.create_dataset(dataset)
    if as_json:
        print_json(made)
    else:
        typer.echo(f"{made.name} created; add images with: manyview upload DIR --dataset {made.id}")


def delete(
    name: Annotated[str, typer.Argument(help="Data set or train job: its id, datasets/ID or trainJobs/ID.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    target: Target = None,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """Delete a data set with its images, or a train job with its events and checkpoints. It cannot be undone."""
    with connect(target, token, None) as client:
        with reporting(None, "delete", f"looking for {name}"):
            dataset, job = _find(client, name)
            question = "" if yes else _question(client, dataset, job)
        if question:
            typer.confirm(question, abort=True, err=True)
        with reporting(None, "delete", f"deleting {name}"):
            if dataset is not None:
                client.delete_dataset(dataset)
            elif job is not None:
                job.delete()
    found = dataset or job
    assert found is not None
    if as_json:
        print_json({"deleted": found.name})
    else:
        typer.echo(f"{found.name} deleted")


def _question(client: Client, dataset: Dataset | None, job: Job | None) -> str:
    if dataset is not None:
        return f"Delete {dataset.name} with its {number_of(dataset.num_images, 'image')}?{_jobs_on(client, dataset)}"
    assert job is not None
    return f"Delete {job.name} ({job.state}) with its events and {number_of(len(job.checkpoints()), 'checkpoint')}?"


def _find(client: Client, name: str) -> tuple[Dataset | None, Job | None]:
    """Return the data set or the job of this name. Raises ValueError if both exist, or neither."""
    if name.startswith("datasets/"):
        return client.dataset(name), None
    if name.startswith("trainJobs/"):
        return None, client.job(name)
    datasets = {dataset.id: dataset for dataset in client.datasets()}
    jobs = {job.id: job for job in client.jobs()}
    if name in datasets and name in jobs:
        raise ValueError(f"{name} is a data set and a train job; write datasets/{name} or trainJobs/{name}")
    if name not in datasets and name not in jobs:
        raise ValueError(f"there is no data set and no train job {name!r}{did_you_mean(name, [*datasets, *jobs])}")
    return datasets.get(name), jobs.get(name)


def _jobs_on(client: Client, dataset: Dataset) -> str:
    count = sum(job.info.dataset == dataset.name for job in client.jobs())
    if not count:
        return ""
    jobs = "One job names it and keeps its" if count == 1 else f"{count} jobs name it and keep their"
    return f" {jobs} checkpoints, but cannot be cloned or continued on it afterwards."
