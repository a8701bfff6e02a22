"""The request for a preview, and its answer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from manyview import _convert, _names
from manyview._arguments import text
from manyview._progress.words import number_of
from manyview._requests import DEFAULT_METHOD, config_struct
from manyview._results.preview import Preview
from manyview._transport.rpcs import Rpcs
from manyview._types.images import ImageError
from manyview._types.server import Limits
from manyview._uploads import sources
from manyview._uploads.pixels import png
from manyview.v1 import train_job_service_pb2 as pb
from manyview.v1 import types_pb2

_MAX_IMAGES = 16
"""The server refuses more images. One more than this is read at most, because a folder may hold many."""
_RESERVED_BYTES = 256 * 1024
"""The part of a message that is kept free for everything but the images."""


def request(
    *,
    job: _names.Named | str | None,
    method: str | None,
    config: Mapping[str, Any] | None,
    seed: int | None,
    epoch: int,
) -> pb.PreviewViewsRequest:
    """Return a request that still lacks its images. Raises ValueError for an argument that has no effect with a job."""
    if job is None:
        if seed is not None and "seed" in (config or {}):
            raise ValueError("seed is given twice, as an argument and in config")
        whole = {**(config or {}), **({} if seed is None else {"seed": seed})}
        return pb.PreviewViewsRequest(
            method=text("method", method) or DEFAULT_METHOD, config=config_struct(whole), epoch=epoch
        )
    given = [name for name, value in (("method", method), ("config", config), ("seed", seed)) if value is not None]
    if given:
        raise ValueError(f"{given[0]} has no effect with job, which has its own")
    return pb.PreviewViewsRequest(train_job=_names.job_name(job), epoch=epoch)


def preview_stored(rpcs: Rpcs, request: pb.PreviewViewsRequest, images: Any) -> Preview:
    """Preview images of a data set, which are named by their keys or as the SDK lists them."""
    items: Iterable[Any] = [images] if isinstance(images, str) else images
    found = list(islice(items, _MAX_IMAGES + 1))
    request.images.extend(pb.PreviewImage(stored=_names.image_ref(item)) for item in found)
    return _preview([str(getattr(item, "key", item)) for item in found], {}, rpcs.preview_views(request))


def preview_files(rpcs: Rpcs, request: pb.PreviewViewsRequest, images: Any, limits: Limits) -> Preview:
    """Preview the caller's images, which are anything that `upload` takes. An image that is too large is sent as an
    empty one, which keeps its place.

    Raises ValueError if all images together do not fit into a message.
    """
    try:
        source = sources.open_source(images, max_image_bytes=limits.max_image_bytes, labels="none")
    except FileNotFoundError as error:
        error.add_note("If these are keys of images of a data set, name it with dataset=.")
        raise
    found = list(islice(source, _MAX_IMAGES + 1))
    num_bytes = sum(len(image.data) for image in found)
    if num_bytes > limits.max_message_bytes - _RESERVED_BYTES:
        raise ValueError(
            f"{number_of(len(found), 'image')} of {num_bytes:,} bytes together do not fit into a message of "
            f"{limits.max_message_bytes:,}: preview fewer at once"
        )
    request.images.extend(pb.PreviewImage(image=types_pb2.Image(data=image.data)) for image in found)
    errors = {row: image.error for row, image in enumerate(found) if image.error is not None}
    answer = _preview([image.key for image in found], errors, rpcs.preview_views(request))
    return replace(answer, skipped=source.skipped.summary())


def _preview(keys: Sequence[str], unsent: Mapping[int, ImageError], reply: pb.PreviewViewsResponse) -> Preview:
    """Convert a reply. `unsent` says why images were not sent."""
    refused = {
        row: _convert.image_error(image.error) for row, image in enumerate(reply.images) if image.HasField("error")
    }
    return Preview(
        keys=tuple(keys),
        image_ids=tuple(image.image_id for image in reply.images),
        shapes=tuple((image.height, image.width) for image in reply.images),
        originals=tuple(png.decode(image.original) if image.original else None for image in reply.images),
        views=tuple(tuple(png.decode(view.png) for view in image.views) for image in reply.images),
        pipelines=tuple(tuple(view.pipeline for view in image.views) for image in reply.images),
        parameters=tuple(tuple(json.loads(view.parameters_json) for view in image.views) for image in reply.images),
        decode_size=reply.decode_size,
        errors={**refused, **unsent},
    )
