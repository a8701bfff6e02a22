"""The previewer: make the views of a few images as training does, for people to look at.

It has a process of its own, and works on one request at a time. So an image or a plugin that kills it costs nobody an
embedding or a training, and the front may kill it when its caller has gone. It uses one thread of the CPU, beside
trainers.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from manyview_server.configuration import InvalidConfiguration
from manyview_server.counted_noun import number_of
from manyview_server.learn import methods
from manyview_server.learn.methods.reconstruction.masked import MaskedImageSettings
from manyview_server.learn.plugins import PluginBroken
from manyview_server.learn.settings import TrainSettings
from manyview_server.learn.views.replay import View, as_bytes, replay
from manyview_server.link.decode_notes import QUARANTINE, TOO_SLOW
from manyview_server.link.frames import MessageTooLarge
from manyview_server.messages.preview import PreviewDone, PreviewedImage, PreviewedView, PreviewFailed, PreviewImages
from manyview_server.store.images.shards import SNAPSHOT_DTYPE, image_id_of
from manyview_server.worker.channel import WorkerChannel
from manyview_server.worker.images import decoder
from manyview_server.worker.images.decode_memory import DecodeMemory
from manyview_server.worker.images.decode_size import choose_size
from manyview_server.worker.images.decoder import DecodeError
from manyview_server.worker.images.guarded_decoder import GuardedDecoder
from manyview_server.worker.images.rgb import PixelRule
from manyview_server.worker.previewing import hidden_patches, png


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """An image of a request, resampled to S x S."""

    image_id: int
    height: int
    width: int
    pixels: Tensor
    """(3, S, S) uint8."""


def run(channel: WorkerChannel) -> None:
    """Answer requests until the link ends."""
    torch.set_num_threads(1)
    guarded = GuardedDecoder("previewer.decode", channel.notes, DecodeMemory())
    while True:
        message = channel.receive()
        assert isinstance(message, PreviewImages)
        try:
            channel.send(answer(message, guarded))
        except MessageTooLarge as error:
            channel.send(PreviewFailed(code=error.code, reason=error.reason, message=error.message))


def answer(request: PreviewImages, guarded: GuardedDecoder | None = None) -> PreviewDone | PreviewFailed:
    """Return the answer to one request."""
    try:
        settings = methods.from_json(request.settings)
        return _preview(settings, request, guarded or GuardedDecoder("previewer.decode", None, DecodeMemory()))
    except InvalidConfiguration as error:
        return PreviewFailed(code="FAILED_PRECONDITION", reason="CONFIG_INVALID", message=str(error))
    except PluginBroken as broken:
        print(broken.error.traceback, file=sys.stderr, flush=True)
        return PreviewFailed(code="FAILED_PRECONDITION", reason="PLUGIN_FAILED", message=str(broken))


def _preview(settings: TrainSettings, request: PreviewImages, guarded: GuardedDecoder) -> PreviewDone | PreviewFailed:
    size = settings.decode_size or _chosen_size(settings, request)
    if too_large := _too_large(settings, request, size):
        return too_large
    rule = PixelRule.of(settings)
    images = [_read(guarded, request, row, size, rule) for row in range(len(request.blobs))]
    readable = [image for image in images if isinstance(image, Decoded)]
    views = _views(settings, request.epoch, readable)
    blobs = [
        png.encode(picture.permute(1, 2, 0).numpy())
        for image, of_image in zip(readable, views, strict=True)
        for picture in (image.pixels, *(as_bytes(view.pixels, settings.views.normalize) for view in of_image))
    ]
    remaining = iter(views)
    return PreviewDone(
        decode_size=size, images=tuple(_previewed(image, remaining) for image in images), blobs=tuple(blobs)
    )


def _chosen_size(settings: TrainSettings, request: PreviewImages) -> int:
    """Return the size to which training would decode a data set of these images, by their headers."""
    headers = []
    for data in request.blobs:
        with suppress(DecodeError):
            headers.append(decoder.read_header(data))
    snapshot = np.zeros(len(headers), SNAPSHOT_DTYPE)
    for row, header in zip(snapshot, headers, strict=True):
        row["height"], row["width"] = header.height, header.width
    return choose_size(snapshot, settings.image_size, None)


def _too_large(settings: TrainSettings, request: PreviewImages, size: int) -> PreviewFailed | None:
    sides = [pipeline.size(settings.image_size) for pipeline in settings.views.pipelines for _ in range(pipeline.count)]
    most = request.max_pixel_bytes // (3 * sum(side**2 for side in (size, *sides)))
    if len(request.blobs) <= most:
        return None
    what = (
        f"{number_of(len(request.blobs), 'image')} of {size} x {size} pixels with {number_of(len(sides), 'view')} each"
    )
    message = f"{what} do not fit into a message; at most {most} do"
    return PreviewFailed(code="INVALID_ARGUMENT", reason="PREVIEW_TOO_LARGE", message=message)


def _views(settings: TrainSettings, epoch: int, images: list[Decoded]) -> list[list[View]]:
    if not images:
        return []
    image_ids = torch.tensor([image.image_id for image in images])
    views = replay(
        torch.stack([image.pixels for image in images]),
        torch.tensor([(image.height, image.width) for image in images]),
        image_ids,
        settings.views,
        image_size=settings.image_size,
        seed=settings.seed,
        epoch=epoch,
    )
    if isinstance(settings, MaskedImageSettings):
        hidden_patches.describe(settings, image_ids, views, epoch=epoch)
    return views


def _read(
    guarded: GuardedDecoder, request: PreviewImages, row: int, size: int, rule: PixelRule
) -> Decoded | DecodeError:
    if row in request.too_slow:
        return DecodeError(TOO_SLOW, QUARANTINE[TOO_SLOW])
    return _decoded(request.blobs[row], size, rule, guarded, row)


def _decoded(data: bytes, size: int, rule: PixelRule, guarded: GuardedDecoder, row: int = 0) -> Decoded | DecodeError:
    try:
        image = guarded.decode(data, size, rule, item=row)
    except DecodeError as error:
        return error
    image_id = image_id_of(hashlib.sha256(data).digest())
    return Decoded(image_id=image_id, height=image.height, width=image.width, pixels=image.pixels)


def _previewed(image: Decoded | DecodeError, remaining: Iterator[list[View]]) -> PreviewedImage:
    if isinstance(image, DecodeError):
        return PreviewedImage(reason=image.reason, message=str(image))
    views = tuple(
        PreviewedView(pipeline=view.pipeline, size=view.pixels.shape[-1], parameters=view.parameters)
        for view in next(remaining)
    )
    return PreviewedImage(image_id=image.image_id, width=image.width, height=image.height, views=views)
