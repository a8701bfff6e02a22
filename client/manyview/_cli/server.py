"""Commands for the server itself: info, health."""

from __future__ import annotations

import typer

from manyview._cli.connection import Json, Target, Token, connect, megabytes, print_json
from manyview._progress.words import number_of


def info(target: Target = None, token: Token = None, as_json: Json = False) -> None:
    """Show the server's version, devices and limits."""
    with connect(target, token, "asking for limits and devices") as client:
        found = client.server_info()
        where = client.target
    if as_json:
        print_json(found)
        return
    typer.echo(f"manyview {found.version} at {where}")
    for device in found.devices:
        memory = f", {megabytes(device.memory_bytes)}" if device.memory_bytes else ""
        typer.echo(f"  {device.name}: {device.description}{memory}")
    limits = found.limits
    typer.echo(f"  largest image: {megabytes(limits.max_image_bytes)}, {limits.max_image_pixels:,} pixels")
    typer.echo(f"  largest batch: {number_of(limits.max_batch_images, 'image')}, {megabytes(limits.max_message_bytes)}")


def health(target: Target = None, token: Token = None, as_json: Json = False) -> None:
    """Print the health of the server. The exit status is 1 unless it is SERVING. Suits health checks."""
    with connect(target, token, "", asks=False) as client:
        status = client.health()
    if as_json:
        print_json({"status": status})
    else:
        typer.echo(status)
    if status != "SERVING":
        raise typer.Exit(1)
