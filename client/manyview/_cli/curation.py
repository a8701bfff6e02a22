"""Commands that find images of a data set: select, neighbors, duplicates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from manyview._cli import sheet, stored
from manyview._cli.connection import Json, Target, Token, connect, print_json, print_table
from manyview._cli.paths import print_skipped, require_sources, skipped_json
from manyview._progress.report import reporting
from manyview._progress.words import number_of
from manyview._results import sheets
from manyview._types.words import Balance, Metric, Output, Strategy

if TYPE_CHECKING:
    from manyview import Client, Neighbor, Selection
    from manyview._uploads.sources import ImageSource

ModelOption = Annotated[
    str, typer.Option("--model", "-m", help="Model: a job, trainJobs/ID/checkpoints/STEP or backbones/NAME.")
]
OutputOption = Annotated[
    str,
    typer.Option(
        help="Output of the model: backbone or projection; of a vision transformer also class_token, patch_mean or "
        "class_and_patch_mean."
    ),
]
MetricOption = Annotated[str, typer.Option(help="Distance: cosine (from 0 to 2) or euclidean.")]
VersionOption = Annotated[int | None, typer.Option(min=1, help="Use only the first N images of the data set.")]
SheetOption = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="SHEET.png", help="Also write a contact sheet (.png or .jpg; needs Pillow)."),
]


def select(
    dataset: Annotated[str, typer.Argument(help="Data set.")],
    count: Annotated[int | None, typer.Option("--count", "-n", min=1, help="Number of images to choose.")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Model: a job, trainJobs/ID/checkpoints/STEP or backbones/NAME. The strategy random needs none.",
        ),
    ] = None,
    strategy: Annotated[
        str, typer.Option(help="Strategy: coreset, minimum_distance, typicality, similarity or random.")
    ] = "coreset",
    seed: Annotated[int | None, typer.Option(min=0, help="Random seed (coreset, minimum_distance, random).")] = None,
    distance: Annotated[
        float | None, typer.Option(help="Least distance between chosen images (minimum_distance).")
    ] = None,
    num_neighbors: Annotated[
        int | None, typer.Option(min=1, help="Neighbors of each image that count; 20 by default (typicality).")
    ] = None,
    like: Annotated[
        list[str] | None, typer.Option(help="Image file or folder to resemble (similarity); repeatable.")
    ] = None,
    like_key: Annotated[
        list[str] | None,
        typer.Option(help="Image of the data set to resemble, by key or id:ID (similarity); repeatable."),
    ] = None,
    chosen: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Images that were chosen before: a file that --out wrote, or one key or id:ID on each line.",
        ),
    ] = None,
    balance: Annotated[
        list[str] | None, typer.Option(help="Balance of the labels: equal, proportional, or LABEL=NUMBER (repeatable).")
    ] = None,
    output: Annotated[str | None, typer.Option(help="Output of the model: backbone (default) or projection.")] = None,
    metric: Annotated[str | None, typer.Option(help="Distance: cosine (default, from 0 to 2) or euclidean.")] = None,
    version: VersionOption = None,
    out: Annotated[
        list[Path] | None,
        typer.Option(
            "--out",
            "-o",
            help="Also write a contact sheet (.png or .jpg; needs Pillow), the keys (.txt), or a table of ids, labels, "
            "scores and keys (.tsv); repeatable.",
        ),
    ] = None,
    target: Target = None,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """Choose images of a data set: diverse, typical, similar to others, or random ones. The exit status is 1 if an
    image to resemble could not be used."""
    if model is None and _uses_model(strategy):
        _require_model("", f"the strategy {strategy} needs a model: ")
    for path in out or ():
        sheet.check(path, ".txt", ".tsv")
    require_sources(like, "To name an image of the data set, use --like-key KEY.")
    before = stored.read(chosen) if chosen else []
    with connect(target, token, "selecting") as client:
        found = client.select(
            dataset,
            count,
            model=model,
            strategy=cast(Strategy, strategy),
            seed=seed,
            distance=distance,
            num_neighbors=num_neighbors,
            like=like[0] if like and len(like) == 1 else like,
            like_keys=stored.named(like_key) if like_key else None,
            chosen=before,
            balance=_balance(balance),
            output=cast(Output | None, output),
            metric=cast(Metric | None, metric),
            version=version,
        )
        for path in out or ():
            _write_selection(client, found, path)
    if as_json:
        print_json(_selection_json(found))
    else:
        rows = [
            (number, sheets.score(sample.score), sample.image_id, sample.image.label or "-", sample.key)
            for number, sample in enumerate(found, start=1)
        ]
        print_table(("RANK", "SCORE", "IMAGE", "LABEL", "KEY"), rows)
        _report_files(out or ())
    option = "--like-key" if like_key else "--like"
    for key, error in found.errors.items():
        typer.echo(f"  {option} {key}: {error.reason} {error.message}", err=True)
    print_skipped(found.skipped)
    if found.errors:
        raise typer.Exit(1)


def neighbors(
    dataset: Annotated[str, typer.Argument(help="Data set.")],
    sources: Annotated[list[str] | None, typer.Argument(help="Folders or image files to use as queries.")] = None,
    key: Annotated[
        list[str] | None,
        typer.Option("--key", help="Image of the data set to use as a query, by key or id:ID; repeatable."),
    ] = None,
    model: ModelOption = "",
    num_neighbors: Annotated[
        int | None, typer.Option("--num-neighbors", "-k", min=1, help="Neighbors of each query; 10 by default.")
    ] = None,
    output: OutputOption = "backbone",
    metric: MetricOption = "cosine",
    version: VersionOption = None,
    out: SheetOption = None,
    target: Target = None,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """Find the images of a data set that are nearest to each query. The exit status is 1 if a query could not be
    embedded."""
    _require_model(model)
    require_sources(sources, "To query with an image of the data set, use --key KEY.")
    if out:
        sheet.check(out)
    with connect(target, token, "reading images") as client:
        source = _opened(client, sources)
        found = client.neighbors(
            dataset,
            source,
            keys=stored.named(key) if key else None,
            model=model,
            num_neighbors=num_neighbors,
            output=cast(Output, output),
            metric=cast(Metric, metric),
            version=version,
        )
        if out:
            shown = sheets.most_queries(found)
            with reporting(None, str(out), "reading images"):
                read = partial(client.read_image, dataset)
                queries = _files(read, source, stored.named(key or ())[: len(shown)])
                sheet.save(sheets.of_neighbors(read, shown, queries), out)
    if out and len(shown) < len(found):
        typer.echo(f"{out} shows the first {len(shown):,} of {len(found):,} queries", err=True)
    if as_json:
        print_json([{"query": answer.query, "error": answer.error, "neighbors": _near(answer)} for answer in found])
    else:
        for answer in found:
            typer.echo(answer.query)
            if answer.error:
                typer.echo(f"  {answer.error.reason} {answer.error.message}", err=True)
            for one in answer:
                typer.echo(f"  {one.distance:.4f}  {one.image_id}  {one.image.label or '-'}  {one.key}")
        _report_files([out] if out else ())
    if source is not None:
        print_skipped(source.skipped.summary())
    if any(answer.error for answer in found):
        raise typer.Exit(1)


def duplicates(
    dataset: Annotated[str, typer.Argument(help="Data set.")],
    max_distance: Annotated[
        float, typer.Option("--max-distance", "-d", min=0, help="Largest distance between near-duplicates.")
    ],
    model: ModelOption = "",
    output: OutputOption = "backbone",
    metric: MetricOption = "cosine",
    version: VersionOption = None,
    out: SheetOption = None,
    target: Target = None,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """Find groups of near-duplicate images."""
    _require_model(model)
    if out:
        sheet.check(out)
    with connect(target, token, "finding duplicates") as client:
        found = client.duplicates(
            dataset,
            model=model,
            max_distance=max_distance,
            output=cast(Output, output),
            metric=cast(Metric, metric),
            version=version,
        )
        if out and found:
            with reporting(None, str(out), "reading images"):
                sheet.save(sheets.of_groups(partial(client.read_image, dataset), found), out)
    if as_json:
        print_json([_near(group) for group in found])
        return
    for number, group in enumerate(found, start=1):
        typer.echo(f"group {number}, {number_of(len(group), 'image')}")
        for one in group:
            typer.echo(f"  {one.distance:.4f}  {one.image_id}  {one.image.label or '-'}  {one.key}")
    spare = sum(map(len, found)) - len(found)
    duplicates = number_of(spare, "image is a duplicate of another", "images are duplicates of others")
    typer.echo(f"{number_of(len(found), 'group')}; {duplicates}")
    _report_files([out] if out and found else ())


def _uses_model(strategy: str) -> bool:
    from manyview._results.selection import PARAMETERS

    return strategy in PARAMETERS.keys() - {"random"}


def _require_model(model: str, why: str = "") -> None:
    if not model:
        raise typer.BadParameter(f"{why}name a job, a checkpoint or backbones/NAME", param_hint="--model")


def _balance(words: Sequence[str] | None) -> Balance | dict[str, int] | None:
    """Return "equal", "proportional", or a number for each label. Raises ValueError for anything else."""
    if not words:
        return None
    first: str = words[0]
    if len(words) == 1 and first in ("equal", "proportional"):
        return cast(Balance, first)
    counts: dict[str, int] = {}
    for word in words:
        label, equals, number = word.rpartition("=")
        if not equals or not number.isdigit():
            raise ValueError(f"--balance {word}: expected equal, proportional or LABEL=NUMBER")
        counts[label] = int(number)
    return counts


def _write_selection(client: Client, found: Selection, path: Path) -> None:
    if path.suffix not in sheet.PICTURES:
        stored.write(found, path)
        return
    with reporting(None, str(path), "reading images"):
        sheet.save(sheets.of_selection(partial(client.read_image, found.dataset), found), path)


def _opened(client: Client, paths: Sequence[str] | None) -> ImageSource | None:
    """Return the images in folders and files, which can be read more than once."""
    from manyview._uploads.sources import open_source

    if not paths:
        return None
    limit = client.server_info().limits.max_image_bytes
    return open_source(paths[0] if len(paths) == 1 else list(paths), max_image_bytes=limit)


def _files(read: sheets.Read, source: ImageSource | None, keys: Sequence[Any]) -> Iterable[bytes]:
    """Return the files of the queries, in their order. Files of a source are read when they are needed."""
    return sheets.files(read, keys) if source is None else (image.data for image in source)


def _selection_json(found: Selection) -> dict[str, Any]:
    return {
        "dataset": found.dataset,
        "strategy": found.strategy,
        "checkpoint": found.checkpoint,
        "version": found.version,
        "errors": [{"like": key, **asdict(error)} for key, error in found.errors.items()],
        "skipped": skipped_json(found.skipped),
        "samples": [
            {"image_id": one.image_id, "key": one.key, "label": one.image.label, "score": one.score} for one in found
        ],
    }


def _near(near: Iterable[Neighbor]) -> list[dict[str, Any]]:
    return [
        {"image_id": one.image_id, "key": one.key, "label": one.image.label, "distance": one.distance} for one in near
    ]


def _report_files(paths: Iterable[Path]) -> None:
    for path in paths:
        typer.echo(f"wrote {path}", err=True)
