"""Commands for models: embed, export, models, methods."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Annotated, Any

import typer

from manyview._arguments import did_you_mean
from manyview._cli.connection import Json, Target, Token, connect, megabytes, print_json, print_table
from manyview._cli.paths import print_skipped, require_folder_of, require_sources, skipped_json
from manyview._progress.report import reporting
from manyview._progress.words import number_of

if TYPE_CHECKING:
    from manyview import Embeddings, Methods


def embed(
    model: Annotated[
        str, typer.Option("--model", "-m", help="Model: a job, trainJobs/ID/checkpoints/STEP or backbones/NAME.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write: .npy (with a .json beside it) or .csv.")],
    sources: Annotated[list[str] | None, typer.Argument(help="Folders, image files or WebDataset .tar shards.")] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", "-d", help="Embed a data set of the server instead of files.")
    ] = None,
    version: Annotated[int | None, typer.Option(min=1, help="Embed only the first N images of the data set.")] = None,
    pca: Annotated[
        str | None,
        typer.Option(metavar="NUMBER", help="Reduce a data set's embeddings: 64 dimensions, or 0.95 of the variance."),
    ] = None,
    whiten: Annotated[bool, typer.Option("--whiten", help="Scale each dimension of --pca to variance 1.")] = False,
    output: Annotated[
        str,
        typer.Option(
            help="Output of the model: backbone or projection; of a vision transformer also class_token, patch_mean, "
            "class_and_patch_mean or patch_tokens."
        ),
    ] = "backbone",
    l2_normalize: Annotated[bool, typer.Option("--l2-normalize", help="Scale each row to length 1.")] = False,
    dtype: Annotated[str, typer.Option(help="Type of the numbers: float32 or float16.")] = "float32",
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images that are sent at once; 64 by default. Only for files.")
    ] = None,
    target: Target = None,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """Embed images and write one row for each, in their order. The exit status is 1 if an image could not be
    embedded."""
    if out.suffix not in (".npy", ".csv"):
        raise ValueError(f"--out {out}: expected a .npy or .csv file")
    if output == "patch_tokens" and out.suffix != ".npy":
        raise ValueError(f"--out {out}: patch tokens need a .npy file, because each image has many rows of them")
    if dataset is not None:
        _refuse({"SOURCES": sources, "--batch-size": batch_size}, "has no effect with --dataset")
    else:
        _refuse({"--version": version, "--pca": pca, "--whiten": whiten}, "needs --dataset")
        if not sources:
            raise ValueError("name files to embed, or set --dataset")
    require_folder_of(out)
    require_sources(sources)
    how: dict[str, Any] = {"output": output, "l2_normalize": l2_normalize, "dtype": dtype}
    with connect(target, token, "embedding") as client:
        if dataset is not None:
            found = client.embed_dataset(dataset, model, version=version, pca=_pca(pca), whiten=whiten, **how)
        else:
            assert sources
            images = sources if len(sources) > 1 else sources[0]
            found = client.embed(images, model, batch_size=64 if batch_size is None else batch_size, **how)
    summary = _summary(found)
    with reporting(None, str(out), "writing"):
        write_csv(found, out) if out.suffix == ".csv" else write_npy(found, summary, out)
    if as_json:
        print_json(summary)
    else:
        nouns = ("row", "token", "feature") if found.array.ndim == 3 else ("row", "feature")
        shape = " of ".join(number_of(n, noun) for n, noun in zip(found.array.shape, nouns, strict=True))
        kept = "" if found.variance_kept is None else f", {found.variance_kept:.1%} of the variance kept"
        typer.echo(f"{out}: {shape} from {found.checkpoint}, std {found.std():.4f}{kept}")
        for row, error in found.errors.items():
            typer.echo(f"  {found.keys[row]}: {error.reason} {error.message}", err=True)
    print_skipped(found.skipped)
    if found.errors:
        raise typer.Exit(1)


def _refuse(given: dict[str, Any], why: str) -> None:
    for name, value in given.items():
        if value not in (None, False, []):
            raise ValueError(f"{name} {why}")


def _pca(text: str | None) -> int | float | None:
    """Return a number of dimensions as an int, or a share of the variance as a float."""
    if text is None:
        return None
    try:
        return int(text) if text.isdigit() else float(text)
    except ValueError:
        raise ValueError(f"--pca {text}: expected a number of dimensions, or a share of the variance") from None


def _summary(found: Embeddings) -> dict[str, Any]:
    errors = [
        {"row": row, "key": found.keys[row], "reason": error.reason, "message": error.message}
        for row, error in found.errors.items()
    ]
    return {
        "checkpoint": found.checkpoint,
        "shape": list(found.array.shape),
        "keys": list(found.keys),
        "labels": list(found.labels),
        "errors": errors,
        "skipped": skipped_json(found.skipped),
        **({} if found.variance_kept is None else {"variance_kept": found.variance_kept}),
    }


def write_npy(found: Embeddings, summary: dict[str, Any], path: Path) -> None:
    """Write the rows as .npy, and the summary as .json beside it."""
    import numpy as np

    np.save(path, found.array)
    path.with_suffix(".json").write_text(json.dumps(summary, indent=2) + "\n")


def write_csv(found: Embeddings, path: Path) -> None:
    """Write one line for each image: its key, its label, and the features."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["key", "label", *(f"f{i}" for i in range(found.array.shape[1]))])
        for key, label, row in zip(found.keys, found.labels, found.array.tolist(), strict=True):
            writer.writerow([key, label, *row])


def export(
    model: Annotated[str, typer.Argument(help="Model: a job, trainJobs/ID/checkpoints/STEP or backbones/NAME.")],
    path: Annotated[Path | None, typer.Argument(help="File to write, in safetensors format.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The same file, as an option.")] = None,
    target: Target = None,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """Write the backbone of a model as a safetensors file, and print Python code that loads it."""
    from manyview._results.exports import loading_code

    if (path is None) == (out is None):
        raise typer.BadParameter("name one file to write, such as backbone.safetensors", param_hint="PATH")
    written_to = path or out or Path()
    require_folder_of(written_to, "PATH")
    with connect(target, token, f"exporting {model}") as client:
        found = client.model(model)
        written = client.export(found, written_to)
        config = client.job(found.train_job).info.config if found.train_job else {}
    num_bytes, code = written.stat().st_size, loading_code.with_manyview(written, found.backbone, config)
    without = loading_code.without_manyview(written, found.backbone, config)
    if as_json:
        codes = {"loading_code": code, "loading_code_without_manyview": without}
        print_json({"path": str(written), "num_bytes": num_bytes, "model": found.name, **codes})
    else:
        typer.echo(f"{written}: {megabytes(num_bytes)}, the {found.backbone} of {found.name}")
        typer.echo(f"load it in Python:\n{indent(code, '  ')}", err=True)
        if without:
            typer.echo(f"or without manyview:\n{indent(without, '  ')}", err=True)


def checkpoints(
    job: Annotated[str, typer.Argument(help="Train job.")],
    target: Target = None,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """List the checkpoints that the server keeps of a job, newest first."""
    with connect(target, token, "listing checkpoints") as client:
        found = client.job(job).checkpoints()
    if as_json:
        print_json(found)
        return
    rows = [
        (m.name, m.step, m.epoch, megabytes(m.num_bytes), f"{m.create_time:%Y-%m-%d %H:%M:%S}" if m.create_time else "")
        for m in found
    ]
    print_table(("CHECKPOINT", "STEP", "EPOCH", "SIZE", "TIME (UTC)"), rows)


def models(
    job: Annotated[str | None, typer.Argument(help="Show only this job's checkpoints.")] = None,
    target: Target = None,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """List the models that you can embed with."""
    with connect(target, token, "listing models") as client:
        found = client.models(job)
    if as_json:
        print_json(found)
        return
    rows = [(m.name, m.method or "-", m.backbone, m.feature_dim, m.projection_dim or "-", m.weights) for m in found]
    print_table(("MODEL", "METHOD", "BACKBONE", "FEATURES", "PROJECTION", "WEIGHTS"), rows)


def methods(
    method: Annotated[str | None, typer.Argument(help="Show the parameters of this method.")] = None,
    target: Target = None,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """List the methods and backbones, or the parameters of one method with their defaults and bounds."""
    with connect(target, token, "listing methods") as client:
        found = client.methods()
    if method is not None:
        _print_parameters(found, method, as_json=as_json)
    elif as_json:
        print_json(found)
    else:
        print_table(("METHOD", "TITLE", "PAPER"), [(item.name, item.title, item.paper) for item in found.methods])
        typer.echo()
        rows = [(item.name, item.feature_dim, item.num_parameters) for item in found.backbones]
        print_table(("BACKBONE", "FEATURES", "PARAMETERS"), rows)
        for plugin in found.plugin_problems:
            typer.echo(f"plugin {plugin.name} of package {plugin.package} cannot be used: {plugin.problem}", err=True)


def _print_parameters(found: Methods, name: str, *, as_json: bool) -> None:
    schemas = {item.name: item.config_schema for item in found.methods}
    if name not in schemas:
        raise ValueError(f"there is no method {name!r}; known: {', '.join(schemas)}{did_you_mean(name, schemas)}")
    if as_json:
        print_json(schemas[name])
        return
    schema = schemas[name]
    print_table(("PARAMETER", "DEFAULT", "ALLOWED", "MEANING"), list(parameters(schema, schema)))


def parameters(schema: Any, root: Any, prefix: str = "") -> list[tuple[str, str, str, str]]:
    """Return the leaves of a JSON Schema as (dotted name, default, allowed values, meaning)."""
    rows: list[tuple[str, str, str, str]] = []
    for name, field in schema.get("properties", {}).items():
        reference = str(field.get("$ref", "")).removeprefix("#/$defs/")
        inner = root.get("$defs", {}).get(reference, field)
        if "properties" in inner:
            if preset := inner.get("x-default-preset"):
                rows.append((f"{prefix}{name}", *_preset_row(preset)))
            rows += parameters(inner, root, f"{prefix}{name}.")
        else:
            default = _default(field)
            rows.append((prefix + name, default, _allowed(inner), field.get("description", "")))
    return rows


def _preset_row(preset: Any) -> tuple[str, str, str]:
    """Return default, allowed values and meaning of an object whose default is one of two presets, by its size."""
    large, small, where = preset["large"], preset["small"], f"{preset['sibling']} {preset['below']}"
    return large, "", f"The default is the preset {large} from {where} on, and {small} below: the values marked small."


def _default(field: Any) -> str:
    """Return a default as text. A list of objects is too long for a table, and only its length is shown."""
    if "properties" in field.get("items", {}):
        return f"[{number_of(len(field['default']), 'object')}]"
    default = json.dumps(field["default"]) if "default" in field else "-"
    return f"{default}, small {json.dumps(field['x-small-default'])}" if "x-small-default" in field else default


def _bound(field: Any, inclusive: str, exclusive: str, sign: str) -> str:
    if inclusive in field:
        return str(field[inclusive])
    return f"{sign}{field[exclusive]}" if exclusive in field else ""


def _allowed(field: Any) -> str:
    if "enum" in field:
        return "|".join(map(str, field["enum"]))
    if "anyOf" in field:
        return "|".join(_allowed(part) for part in field["anyOf"])
    if "x-words" in field:
        return str(field["x-words"])
    low = _bound(field, "minimum", "exclusiveMinimum", ">")
    high = _bound(field, "maximum", "exclusiveMaximum", "<")
    return f"{low}..{high}" if low or high else str(field.get("type", ""))
