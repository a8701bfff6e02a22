"""An event of a job as one line of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from manyview._cli.connection import megabytes
from manyview._progress.words import number_of
from manyview._types import scalar_text

if TYPE_CHECKING:
    from manyview import Event


def line(event: Event) -> str:
    """Return an event as one line of text. Scalars begin with the loss."""
    return f"#{event.sequence} step {event.step} epoch {event.epoch} {event.kind}: {content(event)}"


def short(event: Event) -> str:
    """Return an event as a line without its sequence number and its epoch."""
    return f"step {event.step} {event.kind}: {content(event)}"


def content(event: Event) -> str:
    """Return what an event says."""
    values = event.values
    match event.kind:
        case "scalars":
            named = sorted(values.items(), key=lambda item: scalar_text.order(item[0]))
            return "  ".join(f"{scalar_text.label(name)} {scalar_text.value(name, value)}" for name, value in named)
        case "state":
            return " ".join(filter(None, (values["to"], values["reason"], values["message"])))
        case "snapshot":
            return f"now trains on {number_of(values['num_images'], 'image')}, {values['num_added']:,} of them new"
        case "rollback":
            return f"continues from step {values['to_step']}"
        case "checkpoint":
            return f"{values['name']}, {megabytes(values['num_bytes'])}"
        case _:
            return "  ".join(str(value) for value in values.values() if value != "")
