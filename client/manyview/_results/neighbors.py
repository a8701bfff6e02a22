"""Images that are near to others: the neighbors of queries, and groups of near-duplicates."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from manyview import _convert, _names
from manyview._progress.report import Report
from manyview._requests import metric, output, set_count
from manyview._results.embeddings import batches
from manyview._results.progress import answers
from manyview._transport.rpcs import Rpcs
from manyview._types.datasets import Dataset
from manyview._types.neighbors import DuplicateGroup, Neighbor, QueryNeighbors
from manyview._types.server import Limits
from manyview._types.uploads import SkippedFiles
from manyview._types.words import Metric, Output
from manyview._uploads import sources
from manyview._uploads.encoded_image import EncodedImage
from manyview.v1 import dataset_service_pb2, types_pb2
from manyview.v1 import embed_service_pb2 as pb

_MAX_STORED_QUERIES = 10_000
_MAX_NEIGHBORS = 5_000_000
"""The most queries of one call, and the most neighbors of all of them together, that a server accepts."""


@dataclass(frozen=True, kw_only=True)
class QueryImages:
    """Images to send, which are read when they are needed, or images of the data set with their names in answers."""

    images: Iterator[EncodedImage] = field(default_factory=lambda: iter(()))
    stored: list[dataset_service_pb2.ImageRef] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    skipped: Callable[[], tuple[SkippedFiles, ...]] = tuple
    """Returns the files that were passed over, once `images` were read."""


def queries(images: Any, keys: Iterable[Any] | None, limits: Limits) -> QueryImages:
    """Understand the caller's queries: anything that `embed` takes, keys of images of the data set, or values of the
    SDK that name such images, for example neighbors. Raises ValueError unless exactly one of the two is given."""
    if (images is None) == (keys is None):
        raise ValueError("set exactly one of images and keys (of images of the data set)")
    if isinstance(keys, str):
        raise TypeError(f"keys must be a list of keys, not the string {keys!r}")
    are_stored, images = (True, keys) if keys is not None else _names.are_stored(images)
    if not are_stored:
        try:
            source = sources.open_source(images, max_image_bytes=limits.max_image_bytes, labels="none")
        except FileNotFoundError as error:
            error.add_note("keys=[…] takes keys of images of the data set.")
            raise
        return QueryImages(images=iter(source), skipped=source.skipped.summary)
    stored = list(images)
    if not stored:
        raise ValueError("keys must name at least one image")
    names = [item if isinstance(item, str) else item.key for item in stored]
    return QueryImages(stored=[_names.image_ref(item) for item in stored], names=names)


def neighbors_request(
    dataset: Dataset | str,
    model: _names.Named | str,
    output_word: Output,
    metric_word: Metric,
    version: int | None,
    num_neighbors: int | None,
) -> pb.FindNeighborsRequest:
    """Return a request that still lacks its queries. Raises ValueError for a wrong argument."""
    request = pb.FindNeighborsRequest(
        dataset=_names.dataset_name(dataset),
        model=_names.model_name(model),
        output=output(output_word),
        metric=metric(metric_word),
    )
    set_count(request, "version", version)
    set_count(request, "num_neighbors", num_neighbors)
    return request


def duplicates_request(
    dataset: Dataset | str,
    model: _names.Named | str,
    output_word: Output,
    metric_word: Metric,
    version: int | None,
    max_distance: float,
) -> pb.FindDuplicatesRequest:
    """Return a request. Raises ValueError for a wrong argument."""
    request = pb.FindDuplicatesRequest(
        dataset=_names.dataset_name(dataset),
        model=_names.model_name(model),
        output=output(output_word),
        metric=metric(metric_word),
        max_distance=max_distance,
    )
    set_count(request, "version", version)
    return request


def find_neighbors(
    rpcs: Rpcs,
    request: pb.FindNeighborsRequest,
    queries: QueryImages,
    limits: Limits,
    report: Report,
    timeout_s: float | None,
) -> list[QueryNeighbors]:
    """Return the neighbors of each query, in their order. The queries are spread over as many calls as their number and
    size need; `timeout_s` is for all calls together."""
    began = time.monotonic()
    found: list[QueryNeighbors] = []
    at_once = max(1, min(_MAX_STORED_QUERIES, _MAX_NEIGHBORS // max(1, request.num_neighbors)))
    for start in range(0, len(queries.stored), at_once):
        del request.stored[:]
        request.stored.extend(queries.stored[start : start + at_once])
        found += _neighbors_of_call(rpcs, request, queries.names[start:], report, timeout_s, began)
    for batch in batches(queries.images, limits.max_batch_images, limits):
        del request.images[:]
        request.images.extend(types_pb2.Image(data=image.data) for image in batch)
        names = [image.key for image in batch]
        for image, answer in zip(
            batch, _neighbors_of_call(rpcs, request, names, report, timeout_s, began), strict=True
        ):
            found.append(replace(answer, error=image.error) if image.error else answer)
    return found


def _neighbors_of_call(
    rpcs: Rpcs,
    request: pb.FindNeighborsRequest,
    names: Sequence[str],
    report: Report,
    timeout_s: float | None,
    began: float,
) -> list[QueryNeighbors]:
    checkpoint, found = "", list[QueryNeighbors]()
    for message in answers(rpcs, rpcs.find_neighbors, request, report, timeout_s, began=began):
        if message.HasField("opened"):
            # Later calls must ask the same checkpoint about the same images.
            checkpoint = request.model = message.opened.checkpoint
            request.version = message.opened.version
            found.clear()
        if message.HasField("neighbors"):
            answer = message.neighbors
            found.append(
                QueryNeighbors(
                    query=names[answer.query],
                    neighbors=_neighbors(answer.neighbors),
                    error=_convert.image_error(answer.error) if answer.HasField("error") else None,
                    checkpoint=checkpoint,
                    dataset=request.dataset,
                )
            )
    return found


def find_duplicates(
    rpcs: Rpcs, request: pb.FindDuplicatesRequest, report: Report, timeout_s: float | None
) -> list[DuplicateGroup]:
    """Return the groups, in the order of their first images."""
    checkpoint, groups = "", dict[int, list[Neighbor]]()
    for message in answers(rpcs, rpcs.find_duplicates, request, report, timeout_s):
        if message.HasField("opened"):
            checkpoint = message.opened.checkpoint
            groups.clear()
        if message.HasField("members"):
            groups.setdefault(message.members.group, []).extend(_neighbors(message.members.members))
    return [
        DuplicateGroup(members=tuple(members), checkpoint=checkpoint, dataset=request.dataset)
        for members in groups.values()
    ]


def _neighbors(found: Iterable[pb.Neighbor]) -> tuple[Neighbor, ...]:
    return tuple(Neighbor(image=_convert.stored_image(one.image), distance=one.distance) for one in found)
