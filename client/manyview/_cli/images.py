"""Commands for images and data sets: upload, images, datasets."""

from __future__ import annotations

from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from manyview._cli import sheet, stored
from manyview._cli.connection import Json, Target, Token, connect, megabytes, plain, print_json, print_table
from manyview._cli.paths import require_sources
from manyview._progress.report import reporting
from manyview._results import sheets
from manyview._types import ImageStatus, Sample, StoredImage

if TYPE_CHECKING:
    from manyview import Client


def upload(
    sources: Annotated[list[str], typer.Argument(help="Folders, image files or WebDataset .tar shards.")],
    dataset: Annotated[
        str, typer.Option("--dataset", "-d", help="Data set to add the images to. A missing one is created.")
    ],
    labels: Annotated[
        str | None,
        typer.Option(
            help="Labels of the images: folder (the last folder of an image; the default), path (all its folders), "
            "none, or a file with keys and labels (.csv, .tsv, .json, .jsonl)."
        ),
    ] = None,
    upload_id: Annotated[
        str | None, typer.Option(help="Name of this upload. The same name resumes it after a crash.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with status 1 if an image was refused.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress bar.")] = False,
    target: Target = None,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """Upload images into a data set. In a folder, the label of an image is the name of the last folder that it lies in;
    --labels changes that.

    After a crash, run the same command again: it continues where it stopped."""
    require_sources(sources)
    with connect(target, token) as client:
        found = client.upload(
            sources if len(sources) > 1 else sources[0],
            dataset,
            labels=labels,
            upload_id=upload_id,
            progress=False if quiet else None,
        )
    report = found.upload
    assert report is not None
    if as_json:
        print_json(found)
    else:
        before = f", {report.resumed_from} were sent by an earlier run" if report.resumed_from else ""
        counts = f"{report.num_stored} stored, {report.num_duplicates} duplicates, {report.num_rejected} refused"
        typer.echo(f"{found.name}: {counts}{before}; the data set has {found.num_images} images")
        for image in report.rejected[:20]:
            typer.echo(f"  refused {image.key}: {image.error.reason} {image.error.message}", err=True)
        for conflict in report.label_conflicts[:20]:
            kept = f"{conflict.first_key}, the same image, was labelled {conflict.first_label!r} first, which stays"
            typer.echo(f"  {conflict.key} is labelled {conflict.label!r}, but {kept}", err=True)
    if strict and report.num_rejected:
        raise typer.Exit(1)


def images(
    dataset: Annotated[str, typer.Argument(help="Data set.")],
    status: Annotated[
        list[str] | None,
        typer.Option(
            help="Show only this status: STORED, REJECTED or UNREADABLE; repeatable. Default: STORED and UNREADABLE."
        ),
    ] = None,
    limit: Annotated[int, typer.Option(help="Show at most this many images; 0 shows all.", min=0)] = 100,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Write the list to a file instead: a contact sheet (.png or .jpg; needs Pillow), the keys (.txt), or "
            "a table (.tsv).",
        ),
    ] = None,
    target: Target = None,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """List the images of a data set."""
    if out:
        sheet.check(out, ".txt", ".tsv")
    with connect(target, token) as client:
        found = list(islice(client.images(dataset, cast(list[ImageStatus] | None, status)), limit or None))
        if out:
            with reporting(None, str(out), "reading images"):
                _write(client, dataset, found, out)
    if out:
        typer.echo(f"{out}: {len(found)} images")
        return
    if as_json:
        print_json(found)
        return
    rows = [
        (image.image_id or "-", image.status, f"{image.width}x{image.height}", image.label or "-", image.key)
        + ((image.error.reason,) if image.error else ("",))
        for image in found
    ]
    print_table(("IMAGE", "STATUS", "SIZE", "LABEL", "KEY", "ERROR"), rows)


def _write(client: Client, dataset: str, found: list[StoredImage], path: Path) -> None:
    if path.suffix not in sheet.PICTURES:
        stored.write([Sample(image=image, score=None) for image in found], path)
        return
    stored_ones = [image for image in found if image.status != "REJECTED"]
    sheet.save(sheets.of_images(partial(client.read_image, dataset), stored_ones), path)


def datasets(target: Target = None, token: Token = None, as_json: Json = False) -> None:
    """List the data sets."""
    with connect(target, token) as client:
        found = client.datasets()
    if as_json:
        print_json(plain(found))
        return
    rows = [
        (item.id, item.num_images, megabytes(item.num_bytes), item.num_labels, item.num_rejected, item.num_unreadable)
        for item in found
    ]
    print_table(("DATASET", "IMAGES", "SIZE", "LABELS", "REFUSED", "UNREADABLE"), rows)
