"""The command that shows views of images: preview."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from manyview._cli import sheet, stored
from manyview._cli.connection import Json, Target, Token, connect, print_json, print_table
from manyview._cli.jobs import assign, read_config
from manyview._cli.paths import print_skipped, require_sources, skipped_json
from manyview._progress.report import reporting
from manyview._progress.words import number_of

if TYPE_CHECKING:
    from manyview import Preview


def preview(
    sources: Annotated[
        list[str], typer.Argument(help="Up to 16 image files; with --dataset, keys or id:ID of its images.")
    ],
    method: Annotated[str | None, typer.Option(help="Method, see `manyview methods`. Default: simclr.")] = None,
    job: Annotated[str | None, typer.Option(help="Show the views that this train job makes.")] = None,
    epoch: Annotated[int, typer.Option(min=0, help="Epoch whose views are shown, counted from 0.")] = 0,
    config: Annotated[Path | None, typer.Option(help="Configuration file, .json or .toml.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Set one parameter, as in views.blur.probability=0.2; repeatable.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the views.")] = None,
    dataset: Annotated[str | None, typer.Option("--dataset", "-d", help="Data set that the images are from.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write a contact sheet (.png or .jpg; needs Pillow).")
    ] = None,
    target: Target = None,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """Show the views that training makes of images. The exit status is 1 if an image could not be read."""
    if out is not None:
        sheet.check(out)
    if not dataset:
        require_sources(sources, "To preview images of a data set by their keys, use --dataset.")
    chosen = read_config(config) if config else {}
    for setting in settings or ():
        assign(chosen, setting)
    with connect(target, token, "making views") as client:
        images = stored.named(sources) if dataset else sources
        found = client.preview(
            images if len(images) > 1 else images[0],
            method,
            job=job,
            config=chosen or None,
            seed=seed,
            epoch=epoch,
            dataset=dataset,
        )
    if out is not None:
        with reporting(None, str(out), "drawing"):
            found.save(out)
    if as_json:
        print_json(summary(found))
    elif out is not None:
        typer.echo(f"{out}: {number_of(len(found), 'image')}, {number_of(sum(map(len, found.views)), 'view')}")
    else:
        print_table(("IMAGE", "VIEW", "PIPELINE", "SIZE", "STEPS"), list(rows(found)))
    for at, error in found.errors.items():
        typer.echo(f"  {found.keys[at]}: {error.reason} {error.message}", err=True)
    print_skipped(found.skipped)
    if found.errors:
        raise typer.Exit(1)


def rows(found: Preview) -> list[tuple[str, int, int, int, str]]:
    """Return a row of the table for each view."""
    from manyview._results.view_captions import steps

    return [
        (key, number, pipeline, view.shape[0], ", ".join(steps(done)))
        for key, views, pipelines, parameters in zip(
            found.keys, found.views, found.pipelines, found.parameters, strict=True
        )
        for number, (view, pipeline, done) in enumerate(zip(views, pipelines, parameters, strict=True), start=1)
    ]


def summary(found: Preview) -> dict[str, Any]:
    """Return everything but the pixels, for JSON."""
    images = [image(found, at) for at in range(len(found))]
    return {"decode_size": found.decode_size, "images": images, "skipped": skipped_json(found.skipped)}


def image(found: Preview, at: int) -> dict[str, Any]:
    """Return one image with the parameters of its views, or with the error that prevented them."""
    if at in found.errors:
        return {"key": found.keys[at], "error": asdict(found.errors[at])}
    views = [
        {"pipeline": pipeline, "size": view.shape[0], "parameters": parameters}
        for view, pipeline, parameters in zip(found.views[at], found.pipelines[at], found.parameters[at], strict=True)
    ]
    height, width = found.shapes[at]
    return {"key": found.keys[at], "image_id": found.image_ids[at], "width": width, "height": height, "views": views}
