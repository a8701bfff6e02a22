"""Images that are selected from a data set by a strategy: the request, and the answer."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from manyview import _convert, _names
from manyview._errors import InvalidArgument
from manyview._progress.report import Report
from manyview._progress.words import number_of
from manyview._requests import metric, one_of, output, set_count, set_number
from manyview._results.neighbors import queries
from manyview._results.progress import answers
from manyview._transport.rpcs import Rpcs
from manyview._types.datasets import Dataset
from manyview._types.images import ImageError
from manyview._types.selections import Sample, Selection
from manyview._types.server import Limits
from manyview._types.uploads import SkippedFiles
from manyview._types.words import Balance, Metric, Output, Strategy
from manyview.v1 import embed_service_pb2 as pb
from manyview.v1 import types_pb2

PARAMETERS: dict[Strategy, set[str]] = {
    "random": {"seed"},
    "coreset": {"seed"},
    "minimum_distance": {"distance", "seed"},
    "typicality": {"num_neighbors"},
    "similarity": {"like", "like_keys"},
}
"""The parameters that each strategy takes beside the number of images."""

_LIKE_FIELD = re.compile(r"similarity\.(?:images|stored)\[(\d+)\]")
"""The field by which a server names an image to resemble that it cannot embed."""
_MOST_REASONS = 3

_SHARES: dict[Balance, pb.ClassBalance.Share] = {
    "equal": pb.ClassBalance.SHARE_EQUAL,
    "proportional": pb.ClassBalance.SHARE_PROPORTIONAL,
}


@dataclass(kw_only=True)
class Like:
    """The images to resemble: the keys of those that the request has, the errors of the others, and the files that were
    passed over in folders."""

    keys: list[str] = field(default_factory=list)
    errors: dict[str, ImageError] = field(default_factory=dict)
    skipped: tuple[SkippedFiles, ...] = ()


def request(
    dataset: Dataset | str,
    count: int | None,
    model: _names.Named | str | None,
    chosen: Iterable[Any],
    balance: Balance | Mapping[str, int] | None,
    output_word: Output | None,
    metric_word: Metric | None,
    version: int | None,
) -> pb.SelectSamplesRequest:
    """Return a request that still lacks its strategy. Raises ValueError for a wrong argument."""
    made = pb.SelectSamplesRequest(
        dataset=_names.dataset_name(dataset),
        model="" if model is None else _names.model_name(model),
        output=None if output_word is None else output(output_word),
        metric=None if metric_word is None else metric(metric_word),
        chosen=[_names.image_ref(image) for image in chosen],
        balance=_balance(balance),
    )
    set_count(made, "version", version)
    set_count(made, "count", count)
    return made


def _balance(value: Balance | Mapping[str, int] | None) -> pb.ClassBalance | None:
    if value is None:
        return None
    if isinstance(value, str):
        return pb.ClassBalance(share=one_of("balance", value, _SHARES))
    return pb.ClassBalance(counts=dict(value))


def set_strategy(
    request: pb.SelectSamplesRequest, strategy: Strategy, parameters: Mapping[str, Any], limits: Limits
) -> Like:
    """Set the strategy and those of `parameters` that are not None, and return the images to resemble. Raises
    ValueError for an unknown strategy and for a parameter that it does not take."""
    one_of("strategy", strategy, PARAMETERS)
    given = {name: value for name, value in parameters.items() if value is not None}
    for name in given:
        if name not in PARAMETERS[strategy]:
            takes = ", ".join(sorted(PARAMETERS[strategy]))
            raise ValueError(f"{name} is not a parameter of the strategy {strategy}, which takes {takes}")
    message = getattr(request, strategy)
    message.SetInParent()
    if strategy == "similarity":
        return _set_like(request, message, given, limits)
    for name, value in given.items():
        (set_count if name == "num_neighbors" else set_number)(message, name, value)
    return Like()


def _set_like(request: pb.SelectSamplesRequest, message: Any, given: Mapping[str, Any], limits: Limits) -> Like:
    """Set the images to resemble. Raises ValueError if there are too many, or none that can be sent."""
    found = queries(given.get("like"), given.get("like_keys"), limits)
    images = list(islice(found.images, limits.max_batch_images + 1))
    if len(images) > limits.max_batch_images:
        raise ValueError(f"like: there are more than {number_of(limits.max_batch_images, 'image')}: use fewer")
    errors = {image.key: image.error for image in images if image.error is not None}
    sent = [image for image in images if image.error is None]
    if not sent and not found.stored:
        raise ValueError(f"like: {_reasons(errors) or 'there is no image'}")
    message.images.extend(types_pb2.Image(data=image.data) for image in sent)
    message.stored.extend(found.stored)
    if request.ByteSize() > limits.max_message_bytes:
        size = f"{request.ByteSize():,} bytes of images"
        raise ValueError(f"like: {size} do not fit into a message of {limits.max_message_bytes:,}: use fewer")
    return Like(keys=found.names or [image.key for image in sent], errors=errors, skipped=found.skipped())


def select(
    rpcs: Rpcs, request: pb.SelectSamplesRequest, like: Like, report: Report, timeout_s: float | None
) -> Selection:
    """Return the selected images. An image to resemble that the server cannot embed is left out and named in the
    answer, as long as another one is left."""
    began = time.monotonic()
    while True:
        try:
            return _select(rpcs, request, like, report, timeout_s, began)
        except InvalidArgument as error:
            refused = _refused(error)
            if not refused:
                raise
            _leave_out(request.similarity, like, refused)
            if not like.keys:
                raise _none_left(like, error) from error


def _refused(error: InvalidArgument) -> dict[int, ImageError]:
    """Return the images to resemble that have no embedding, or nothing if the server refused anything else, too. It
    counts those that it has no room to name in a violation without a field, and names them once the others are left
    out. A server without reasons is older than them, so its error is shown whole."""
    found = {}
    for violation in error.violations:
        number = _LIKE_FIELD.fullmatch(violation.field)
        if number is not None and violation.reason:
            message = violation.description.removeprefix("has no embedding: ").removeprefix(f"{violation.reason}: ")
            found[int(number[1])] = ImageError(reason=violation.reason, message=message)
        elif violation.field:
            return {}
    return found


def _leave_out(similarity: pb.SimilarityStrategy, like: Like, refused: Mapping[int, ImageError]) -> None:
    sent: Any = similarity.images or similarity.stored
    like.errors |= {like.keys[number]: error for number, error in sorted(refused.items())}
    for number in sorted(refused, reverse=True):
        del sent[number], like.keys[number]


def _none_left(like: Like, error: InvalidArgument) -> InvalidArgument:
    return InvalidArgument(f"like: {_reasons(like.errors)}", reason=error.reason, metadata=error.metadata)


def _reasons(errors: Mapping[str, ImageError]) -> str:
    """Return the reasons why no image to resemble can be used, for the first few."""
    some = [f"{key}: {error.reason} {error.message}" for key, error in islice(errors.items(), _MOST_REASONS)]
    if len(errors) > len(some):
        some.append(f"and {number_of(len(errors) - len(some), 'more image')}")
    return "; ".join(some)


def _select(
    rpcs: Rpcs,
    request: pb.SelectSamplesRequest,
    like: Like,
    report: Report,
    timeout_s: float | None,
    began: float,
) -> Selection:
    opened, samples = pb.EmbeddingsOpened(), list[Sample]()
    for message in answers(rpcs, rpcs.select_samples, request, report, timeout_s, began=began):
        if message.HasField("opened"):
            opened = message.opened
            samples.clear()
        for sample in message.samples.samples:
            score = sample.score if sample.HasField("score") else None
            samples.append(Sample(image=_convert.stored_image(sample.image), score=score))
    return Selection(
        samples=tuple(samples),
        dataset=request.dataset,
        strategy=request.WhichOneof("strategy"),
        checkpoint=opened.checkpoint,
        version=opened.version,
        errors=like.errors,
        skipped=like.skipped,
    )
