"""Views of a few images, as training makes them, to look at.

Shapes: S pixels on a side of a decoded image, o of a view; arrays are RGB, uint8.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manyview import _convert, _names
from manyview._arguments import text
from manyview._requests import DEFAULT_METHOD, config_struct
from manyview._transport.rpcs import Rpcs
from manyview._types import ImageError, Limits
from manyview._uploads import pixels, sources
from manyview.v1 import train_job_service_pb2 as pb
from manyview.v1 import types_pb2

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

_MAX_IMAGES = 16
"""The server refuses more images. One more than this is read at most, because a folder may hold many."""

_RESERVED_BYTES = 256 * 1024
"""The part of a message that is kept free for everything but the images."""


@dataclass(frozen=True, kw_only=True)
class Preview:
    """Views of a few images; each field has an item for each image, in their order.

    `originals` is what training sees of an image, (S, S, 3), S = `decode_size`, whatever the image's `shapes`, height
    and width, are. `views` holds the views of each, (o, o, 3), in the order of the recipe, `pipelines` the index of the
    pipeline that made each, and `parameters` what was done: a dict of the steps that apply, in their order, crops in
    pixels of the original. An image that could not be read has an entry in `errors`, by its place, and no views.
    """

    keys: tuple[str, ...]
    image_ids: tuple[str, ...] = field(repr=False)
    shapes: tuple[tuple[int, int], ...] = field(repr=False)
    originals: tuple[NDArray[np.uint8] | None, ...] = field(repr=False)
    views: tuple[tuple[NDArray[np.uint8], ...], ...] = field(repr=False)
    pipelines: tuple[tuple[int, ...], ...] = field(repr=False)
    parameters: tuple[tuple[dict[str, Any], ...], ...] = field(repr=False)
    decode_size: int
    errors: dict[int, ImageError] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)

    def sheet(self) -> Image.Image:
        """A contact sheet: a row for each image, the original first, then its views, with what was done below each.

        Raises ValueError where Pillow, which draws it, is not installed.
        """
        from manyview._results.contact_sheet import draw

        return draw(self)

    def save(self, path: str | PathLike[str]) -> Path:
        """Write `sheet` to a file; its suffix says in which format."""
        target = Path(path)
        self.sheet().save(target)
        return target


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
    source = sources.open_source(images, max_image_bytes=limits.max_image_bytes)
    found = list(islice(source, _MAX_IMAGES + 1))
    num_bytes = sum(len(image.data) for image in found)
    if num_bytes > limits.max_message_bytes - _RESERVED_BYTES:
        raise ValueError(
            f"{len(found)} images of {num_bytes} bytes together do not fit into a message of "
            f"{limits.max_message_bytes}: preview fewer at once"
        )
    request.images.extend(pb.PreviewImage(image=types_pb2.Image(data=image.data)) for image in found)
    errors = {row: image.error for row, image in enumerate(found) if image.error is not None}
    return _preview([image.key for image in found], errors, rpcs.preview_views(request))


def _preview(keys: Sequence[str], unsent: Mapping[int, ImageError], reply: pb.PreviewViewsResponse) -> Preview:
    """Convert a reply. `unsent` says why images were not sent."""
    refused = {
        row: _convert.image_error(image.error) for row, image in enumerate(reply.images) if image.HasField("error")
    }
    return Preview(
        keys=tuple(keys),
        image_ids=tuple(image.image_id for image in reply.images),
        shapes=tuple((image.height, image.width) for image in reply.images),
        originals=tuple(pixels.decode_png(image.original) if image.original else None for image in reply.images),
        views=tuple(tuple(pixels.decode_png(view.png) for view in image.views) for image in reply.images),
        pipelines=tuple(tuple(view.pipeline for view in image.views) for image in reply.images),
        parameters=tuple(tuple(json.loads(view.parameters_json) for view in image.views) for image in reply.images),
        decode_size=reply.decode_size,
        errors={**refused, **unsent},
    )
