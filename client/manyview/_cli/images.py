"""Commands for images and data sets: upload, images, datasets."""

from __future__ import annotations

import sys
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from manyview._cli import sheet, stored
from manyview._cli.connection import Json, Target, Token, connect, megabytes, plain, print_json, print_table
from manyview._cli.paths import print_report, require_sources
from manyview._progress.report import reporting
from manyview._progress.words import number_of
from manyview._results import sheets
from manyview._types import uploads
from manyview._types.datasets import Dataset
from manyview._types.images import StoredImage
from manyview._types.selections import Sample
from manyview._types.words import ImageStatus, SkipReason

if TYPE_CHECKING:
    from manyview import Client

_IMAGES_REFUSED = 3
"""The exit status of an upload that is complete, but refused images."""
_MAYBE_IMAGES: frozenset[SkipReason] = frozenset({"FORMAT_NOT_READ", "BROKEN_LINK", "UNREADABLE_FILE", "LINK_IN_SHARD"})
"""The reasons for which --strict counts a file that was passed over as refused."""

UNSENT = "Files that were not sent (too large, unreadable) are known to their upload alone: run it again to see them."


def upload(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Folders, image files, WebDataset shards (.tar, .tar.gz), or patterns such as 'shard-{000..010}.tar'."
        ),
    ],
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
    image: Annotated[
        str | None,
        typer.Option(help="In shards, the member that is the image: jpg, input.png, jpg;png. Default: every image."),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(help="In shards, the member that is the label: cls, json, txt. Default: cls, json, short txt."),
    ] = None,
    upload_id: Annotated[
        str | None, typer.Option(help="Name of this upload. The same name resumes it after a crash.")
    ] = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Exit with status 3 also if files were passed over that may be images: broken links, files that "
            "cannot be read, and formats that the server does not read.",
        ),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress bar.")] = False,
    target: Target = None,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """Upload images into a data set. In a folder, the label of an image is the name of the last folder that it lies in;
    --labels changes that.

    In a folder, every file is taken that is an image or a shard, whatever its name. Links are followed once, and hidden
    files are left out. The report counts everything that was found.

    After a crash, run the same command again: it continues where it stopped.

    The exit status is 0 if all images are in the data set now, 3 if images were refused, 1 after any other error, and 2
    for wrong usage. If all images are refused, a missing data set is not created."""
    from manyview import UploadRejected
    from manyview._names import dataset_name

    require_sources(sources)
    with connect(target, token, f"uploading to {dataset}") as client:
        try:
            found = client.upload(
                sources if len(sources) > 1 else sources[0],
                dataset,
                labels=labels,
                image=image,
                label=label,
                upload_id=upload_id,
                progress=False if quiet else None,
            )
            report = found.upload
        except UploadRejected as error:
            found, report = _missing(dataset_name(dataset)), error.report
    assert report is not None
    if as_json:
        sums = {"num_found": report.num_found, "num_skipped": report.num_skipped}
        print_json({**plain(found), "upload": {**sums, **plain(report)}})
    else:
        kept = f"has {number_of(found.num_images, 'image')}" if found.uid else "was not created"
        print_report([f"{found.name}: {uploads.counts(report)}; the data set {kept}"], sys.stdout)
        print_report(uploads.details(report, found.id))
    is_lost = strict and any(files.reason in _MAYBE_IMAGES for files in report.skipped)
    if report.num_rejected or report.num_rejected_before or is_lost:
        raise typer.Exit(_IMAGES_REFUSED)


def _missing(name: str) -> Dataset:
    """Return a data set that was not created because all images were refused."""
    return Dataset(
        name=name,
        uid="",
        create_time=None,
        num_images=0,
        num_bytes=0,
        num_labels=0,
        num_labelled=0,
        num_rejected=0,
        num_unreadable=0,
    )


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
    """List the images of a data set. Refused images are shown only with --status REJECTED.

    A file that was not sent, because it is too large or cannot be read, is known to its upload alone. Run the upload
    again to see its name: nothing is sent twice."""
    if out:
        sheet.check(out, ".txt", ".tsv")
    with connect(target, token, "listing images") as client:
        found = list(islice(client.images(dataset, cast(list[ImageStatus] | None, status)), limit or None))
        num_rejected = 0 if status else client.dataset(dataset).num_rejected
        if out:
            with reporting(None, str(out), "reading images"):
                _write(client, dataset, found, out)
    if out:
        typer.echo(f"{out}: {number_of(len(found), 'image')}")
        return
    if as_json:
        print_json(found)
        return
    rows = [
        (
            image.image_id or "-",
            image.status,
            f"{image.width}x{image.height}" if image.width else "-",
            image.label or "-",
            image.key,
        )
        + ((f"{image.error.reason} {image.error.message}",) if image.error else ("",))
        for image in found
    ]
    print_table(("IMAGE", "STATUS", "SIZE", "LABEL", "KEY", "ERROR"), rows)
    if status and "REJECTED" in status:
        typer.echo(UNSENT, err=True)
    if num_rejected:
        hidden = number_of(num_rejected, "refused image is not shown", "refused images are not shown")
        typer.echo(f"{hidden}; add --status REJECTED to see {'it' if num_rejected == 1 else 'them'}", err=True)


def _write(client: Client, dataset: str, found: list[StoredImage], path: Path) -> None:
    if path.suffix not in sheet.PICTURES:
        stored.write([Sample(image=image, score=None) for image in found], path)
        return
    stored_ones = [image for image in found if image.status != "REJECTED"]
    sheet.save(sheets.of_images(partial(client.read_image, dataset), stored_ones), path)


def datasets(target: Target = None, token: Token = None, as_json: Json = False) -> None:
    """List the data sets."""
    with connect(target, token, "listing data sets") as client:
        found = client.datasets()
    if as_json:
        print_json(plain(found))
        return
    rows = [
        (item.id, item.num_images, megabytes(item.num_bytes), item.num_labels, item.num_rejected, item.num_unreadable)
        for item in found
    ]
    print_table(("DATASET", "IMAGES", "SIZE", "LABELS", "REFUSED", "UNREADABLE"), rows)
