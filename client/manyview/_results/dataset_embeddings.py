"""The embeddings of a data set, which the server holds and sends page by page."""

from __future__ import annotations

from collections.abc import Iterator

from manyview import _convert, _names
from manyview._errors import Internal
from manyview._progress.report import Report
from manyview._progress.words import number_of
from manyview._requests import embed_options, set_count
from manyview._results.embeddings import Embeddings
from manyview._results.progress import IsProgress, show
from manyview._transport.resume import replies
from manyview._transport.rpcs import Rpcs
from manyview._types.datasets import Dataset
from manyview._types.words import DataType, Output
from manyview.v1 import embed_service_pb2 as pb


def request(
    dataset: Dataset | str,
    model: _names.Named | str,
    output: Output,
    l2_normalize: bool,
    dtype: DataType,
    version: int | None,
    pca: int | float | None,
    whiten: bool,
) -> pb.EmbedDatasetRequest:
    """Return a request. Raises ValueError or TypeError for a wrong argument."""
    made = pb.EmbedDatasetRequest(
        dataset=_names.dataset_name(dataset),
        model=_names.model_name(model),
        options=embed_options(output, l2_normalize, dtype),
        pca=_pca(pca, whiten),
    )
    set_count(made, "version", version)
    return made


def _pca(target: int | float | None, whiten: bool) -> pb.Pca | None:
    if target is None:
        if whiten:
            raise ValueError("whiten needs pca: a number of dimensions, or a share of the variance to keep")
        return None
    if isinstance(target, bool) or not isinstance(target, int | float):
        raise TypeError(f"pca must be a number of dimensions (int) or a share of the variance (float), not {target!r}")
    if isinstance(target, int):
        return pb.Pca(num_components=target, whiten=whiten)
    return pb.Pca(variance_fraction=target, whiten=whiten)


def chunks(rpcs: Rpcs, request: pb.EmbedDatasetRequest, report: Report) -> Iterator[Embeddings]:
    """Yield a chunk for each page. A stream that breaks continues after the last page, with the same checkpoint and
    version."""
    request.page_token = ""
    checkpoint, version, variance_kept, next_row = "", 0, None, 0
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
                show(message.progress, report, version)
            case "pca":
                variance_kept = message.pca.variance_kept
            case "page":
                chunk = _chunk(message.page, checkpoint, variance_kept)
                if chunk.start != next_row:
                    raise Internal(f"row {chunk.start} came, but row {next_row} was expected", reason="PROTOCOL")
                next_row += len(chunk)
                request.page_token = message.page.page_token
                report.count(next_row, version, "receiving")
                yield chunk


def _chunk(page: pb.EmbeddingsPage, checkpoint: str, variance_kept: float | None) -> Embeddings:
    array = _convert.tensor(page.embeddings)
    if len(array) != len(page.images):
        raise Internal(
            f"{number_of(len(array), 'row')} came for {number_of(len(page.images), 'image')}", reason="PROTOCOL"
        )
    return Embeddings(
        array=array,
        checkpoint=checkpoint,
        keys=tuple(image.key for image in page.images),
        labels=tuple(image.label for image in page.images),
        errors={error.row: _convert.image_error(error.error) for error in page.errors},
        start=page.first_row,
        variance_kept=variance_kept,
    )
