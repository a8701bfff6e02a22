"""Which images: samples by a strategy, neighbors of queries, groups of near-duplicates."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, TypeVar

from manyview import _convert, _names
from manyview._results.dataset_embeddings import IsProgress, Progress
from manyview._results.embeddings import batches
from manyview._transport.resume import replies
from manyview._transport.rpcs import Rpcs
from manyview._transport.stream import Stream
from manyview._types import DuplicateGroup, Limits, Neighbor, QueryNeighbors, Sample, Selection
from manyview._uploads import sources
from manyview._uploads.sources import EncodedImage
from manyview.v1 import dataset_service_pb2, types_pb2
from manyview.v1 import embed_service_pb2 as pb

PARAMETERS = {
    "random": {"seed"},
    "coreset": {"seed"},
    "minimum_distance": {"distance", "seed"},
    "typicality": {"num_neighbors"},
    "similarity": {"like", "like_keys"},
}
"""The strategies, and what each takes beside the number of images."""
_SHARES = {"equal": pb.ClassBalance.SHARE_EQUAL, "proportional": pb.ClassBalance.SHARE_PROPORTIONAL}
_METRICS = {"cosine": pb.METRIC_COSINE, "euclidean": pb.METRIC_EUCLIDEAN}
_OUTPUTS = {"backbone": pb.EmbedOptions.OUTPUT_BACKBONE, "projection": pb.EmbedOptions.OUTPUT_PROJECTION}
_MAX_STORED = 10_000
_MAX_FOUND = 5_000_000
"""Queries of a call, and neighbors of all of them together: what a server answers at once."""

R = TypeVar("R")


def output(name: str) -> pb.EmbedOptions.Output:
    """A network's output by name. Raises ValueError."""
    return _chosen("output", name, _OUTPUTS)


def metric(name: str) -> pb.Metric:
    """A metric by name. Raises ValueError."""
    return _chosen("metric", name, _METRICS)


def set_strategy(request: pb.SelectSamplesRequest, strategy: str, given: Mapping[str, Any], limits: Limits) -> None:
    """The strategy with its parameters, those that are not None. Raises ValueError for one that it does not take."""
    if strategy not in PARAMETERS:
        raise ValueError(f"unknown strategy {strategy!r}: there are {', '.join(PARAMETERS)}")
    wanted = {name: value for name, value in given.items() if value is not None}
    for name in wanted:
        if name not in PARAMETERS[strategy]:
            takes = ", ".join(sorted(PARAMETERS[strategy]))
            raise ValueError(f"{name} is no parameter of the strategy {strategy}, which takes {takes}")
    message = getattr(request, strategy)
    message.SetInParent()
    if strategy == "similarity":
        found = queries(wanted.get("like"), wanted.get("like_keys"), limits)
        images = list(islice(found.images, limits.max_batch_images + 1))
        if len(images) > limits.max_batch_images:
            raise ValueError(f"like: there are more than {limits.max_batch_images} images: use fewer")
        for image in images:
            if image.error is not None:
                raise ValueError(f"like: {image.key}: {image.error.reason} {image.error.message}")
        message.images.extend(types_pb2.Image(data=image.data) for image in images)
        message.stored.extend(found.stored)
        if request.ByteSize() > limits.max_message_bytes:
            size = f"{request.ByteSize():,} bytes of images"
            raise ValueError(f"like: {size} do not fit into a message of {limits.max_message_bytes:,}: use fewer")
        return
    for name, value in wanted.items():
        (_convert.set_count if name == "num_neighbors" else _convert.set_number)(message, name, value)


def balance(value: str | Mapping[str, int] | None) -> pb.ClassBalance | None:
    """ "equal", "proportional", or a number for each label. Raises ValueError."""
    if value is None:
        return None
    if isinstance(value, str):
        return pb.ClassBalance(share=_chosen("balance", value, _SHARES))
    return pb.ClassBalance(counts=dict(value))


@dataclass(frozen=True, kw_only=True)
class Queries:
    """Images to send, read when they are asked for, or images of the data set and what they are called."""

    images: Iterator[EncodedImage] = field(default_factory=lambda: iter(()))
    stored: list[dataset_service_pb2.ImageRef] = field(default_factory=list)
    names: list[str] = field(default_factory=list)


def queries(images: Any, keys: Iterable[Any] | None, limits: Limits) -> Queries:
    """What `embed` takes; or keys, or values of the SDK that name images of the data set, such as neighbors. Raises
    ValueError where there is neither, or both."""
    if (images is None) == (keys is None):
        raise ValueError("give images, or keys of images of the data set: one of the two")
    if isinstance(keys, str):
        raise TypeError(f"keys is a list of keys, not the string {keys!r}")
    are_stored, images = (True, keys) if keys is not None else _names.are_stored(images)
    if not are_stored:
        return Queries(images=iter(sources.open_source(images, max_image_bytes=limits.max_image_bytes)))
    stored = list(images)
    if not stored:
        raise ValueError("keys: there is none")
    names = [item if isinstance(item, str) else item.key for item in stored]
    return Queries(stored=[_names.image_ref(item) for item in stored], names=names)


def select(rpcs: Rpcs, request: pb.SelectSamplesRequest, progress: Progress, timeout_s: float | None) -> Selection:
    """The selected images."""
    opened, samples = pb.EmbeddingsOpened(), list[Sample]()
    for message in _messages(rpcs, rpcs.select_samples, request, progress, timeout_s):
        if message.HasField("opened"):  # of this stream, or of one that begins anew
            opened = message.opened
            samples.clear()
        for sample in message.samples.samples:
            score = sample.score if sample.HasField("score") else None
            samples.append(Sample(image=_convert.stored_image(sample.image), score=score))
    return Selection(
        samples=tuple(samples),
        dataset=request.dataset,
        strategy=str(request.WhichOneof("strategy")),
        checkpoint=opened.checkpoint,
        version=opened.version,
    )


def neighbors(
    rpcs: Rpcs,
    request: pb.FindNeighborsRequest,
    asked: Queries,
    limits: Limits,
    progress: Progress,
    timeout_s: float | None,
) -> list[QueryNeighbors]:
    """The neighbors of each query, in their order, by as many calls as their number and size make necessary."""
    began = time.monotonic()
    found: list[QueryNeighbors] = []
    at_once = max(1, min(_MAX_STORED, _MAX_FOUND // max(1, request.num_neighbors)))
    for start in range(0, len(asked.stored), at_once):
        del request.stored[:]
        request.stored.extend(asked.stored[start : start + at_once])
        found += _neighbors_of_call(rpcs, request, asked.names[start:], progress, timeout_s, began)
    for batch in batches(asked.images, limits.max_batch_images, limits):
        del request.images[:]
        request.images.extend(types_pb2.Image(data=image.data) for image in batch)
        answers = _neighbors_of_call(rpcs, request, [image.key for image in batch], progress, timeout_s, began)
        found += [
            replace(answer, error=image.error) if image.error else answer
            for image, answer in zip(batch, answers, strict=True)
        ]
    return found


def _neighbors_of_call(
    rpcs: Rpcs,
    request: pb.FindNeighborsRequest,
    names: Sequence[str],
    progress: Progress,
    timeout_s: float | None,
    began: float,
) -> list[QueryNeighbors]:
    checkpoint, found = "", list[QueryNeighbors]()
    for message in _messages(rpcs, rpcs.find_neighbors, request, progress, timeout_s, began):
        if message.HasField("opened"):  # later calls ask the same model about the same images
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
                )
            )
    return found


def duplicates(
    rpcs: Rpcs, request: pb.FindDuplicatesRequest, progress: Progress, timeout_s: float | None
) -> list[DuplicateGroup]:
    """The groups, in the order of their first images."""
    checkpoint, groups = "", dict[int, list[Neighbor]]()
    for message in _messages(rpcs, rpcs.find_duplicates, request, progress, timeout_s):
        if message.HasField("opened"):
            checkpoint = message.opened.checkpoint
            groups.clear()
        if message.HasField("members"):
            groups.setdefault(message.members.group, []).extend(_neighbors(message.members.members))
    return [DuplicateGroup(members=tuple(members), checkpoint=checkpoint) for members in groups.values()]


def _messages(
    rpcs: Rpcs,
    call: Callable[[Any], Stream[Any, Any]],
    request: Any,
    progress: Progress,
    timeout_s: float | None,
    began: float | None = None,
) -> Iterable[Any]:
    """The messages of a call, but for progress; one that breaks is made again: the answer is the same."""
    for message in replies(
        lambda: call(request),
        rpcs.channel.deadlines,
        is_end=lambda m: m.HasField("end"),
        is_progress=IsProgress(),
        timeout_s=timeout_s,
        began=began,
    ):
        if message.HasField("progress"):
            progress(message.progress.done, message.progress.total)
        else:
            yield message


def _neighbors(found: Iterable[pb.Neighbor]) -> tuple[Neighbor, ...]:
    return tuple(Neighbor(image=_convert.stored_image(one.image), distance=one.distance) for one in found)


def _chosen(what: str, name: str, known: Mapping[str, R]) -> R:
    if name not in known:
        raise ValueError(f"{what} must be one of {', '.join(known)}, not {name!r}")
    return known[name]
