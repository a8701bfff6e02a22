"""The embeddings of a data set that the server holds: page by page, over as many streams as it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from manyview import _convert
from manyview._errors import Internal
from manyview._results.embeddings import Embeddings
from manyview._transport.resume import replies
from manyview._transport.rpcs import Rpcs
from manyview.v1 import embed_service_pb2 as pb

Progress = Callable[[int, int], None]
"""Called with how much is done and how much there is."""


class IsProgress:
    """Does a message of a stream about embeddings prove progress? `opened` does not, and neither does a count that was
    reported before: a server that fails again and again may repeat both each time."""

    def __init__(self) -> None:
        self._done = -1

    def __call__(self, message: Any) -> bool:
        if message.HasField("progress"):
            before, self._done = self._done, max(self._done, message.progress.done)
            return self._done > before
        return not message.HasField("opened")


def pca(target: int | float | None, whiten: bool) -> pb.Pca | None:
    """Principal components as a message: so many for a whole number, those that keep a share for a float."""
    if target is None:
        if whiten:
            raise ValueError("whiten needs pca: how many dimensions, or which share of the variance to keep")
        return None
    if isinstance(target, bool) or not isinstance(target, int | float):
        raise TypeError(f"pca is a number of dimensions (int) or a share of the variance (float), not {target!r}")
    if isinstance(target, int):
        return pb.Pca(num_components=target, whiten=whiten)
    return pb.Pca(variance_fraction=target, whiten=whiten)


def pages(rpcs: Rpcs, request: pb.EmbedDatasetRequest, progress: Progress) -> Iterator[Embeddings]:
    """A chunk for each page. A stream that breaks goes on behind the last one, with the same checkpoint and version."""
    request.page_token = ""
    checkpoint, version, kept, start = "", 0, None, 0

    for message in replies(
        lambda: rpcs.embed_dataset(request),
        rpcs.channel.deadlines,
        is_end=lambda m: m.HasField("end"),
        is_progress=IsProgress(),
    ):
        match message.WhichOneof("payload"):
            case "opened":
                checkpoint, version = message.opened.checkpoint, message.opened.version
                request.page_token = message.opened.page_token
            case "progress":
                progress(message.progress.done, version)
            case "pca":
                kept = message.pca.variance_kept
            case "page":
                chunk = _chunk(message.page, checkpoint, kept)
                if chunk.start != start:
                    raise Internal(f"row {chunk.start} came where {start} was due", reason="PROTOCOL")
                start += len(chunk)
                request.page_token = message.page.page_token
                progress(start, version)
                yield chunk


def _chunk(page: pb.EmbeddingsPage, checkpoint: str, kept: float | None) -> Embeddings:
    array = _convert.tensor(page.embeddings)
    if len(array) != len(page.images):
        raise Internal(f"{len(array)} rows came for {len(page.images)} images", reason="PROTOCOL")
    return Embeddings(
        array=array,
        checkpoint=checkpoint,
        keys=tuple(image.key for image in page.images),
        labels=tuple(image.label for image in page.images),
        errors={error.row: _convert.image_error(error.error) for error in page.errors},
        start=page.first_row,
        variance_kept=kept,
    )
