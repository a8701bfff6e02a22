"""The images of a job, for tests: decoded from a data set on disk, or given as an array."""

from __future__ import annotations

import threading
from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from manyview_server.store.images.shards import SNAPSHOT_DTYPE
from manyview_server.worker.job_images.decoded_images import DecodedImages
from manyview_server.worker.job_images.findings import Finding, Unreadable
from manyview_server.worker.job_images.image_decoder import ImageDecoder
from manyview_server.worker.job_images.image_index import ImageIndex
from manyview_server.worker.job_images.pixel_store import PixelStore

CPU = torch.device("cpu")
PLENTY = 1 << 30


def from_dataset(
    directory: Path, snapshot: Any, size: int = 16, *, cache_bytes: int = PLENTY, **options: Any
) -> DecodedImages:
    """Return the images of a data set. Options of the decoder and of `DecodedImages` may be given."""
    of_decoder = {name: options.pop(name) for name in ("rule", "notes", "memory", "quarantined") if name in options}
    decoder = ImageDecoder(directory, size, **of_decoder)
    store = PixelStore(size, CPU, cache_bytes)
    return DecodedImages(ImageIndex(snapshot), decoder, store, **{"num_threads": 2, **options})


class ArrayDecoder:
    """Decodes images that are rows of an array (N, 3, S, S)."""

    def __init__(self, pixels: Tensor, sizes: Tensor, unreadable: Collection[int]) -> None:
        self._pixels = pixels.numpy()
        self._sizes = sizes.tolist()
        self._unreadable = set(unreadable)
        self._lock = threading.Lock()
        self.decoded: list[int] = []
        """The rows in the order in which their decoding began."""

    def decode(self, row: int, place: Any, into: Any) -> Finding:
        with self._lock:
            self.decoded.append(row)
        image_id = int(place["image_id"])
        if row in self._unreadable:
            found = Unreadable(image_id=image_id, reason="DECODE_FAILED", message="it is said")
            return Finding(row, image_id, unreadable=found)
        into[...] = self._pixels[row]
        return Finding(row, image_id, *self._sizes[row])

    def read_ahead(self, places: Any) -> None:
        pass

    def close(self) -> None:
        pass


def from_array(
    pixels: Tensor,
    *,
    image_ids: Tensor | None = None,
    labels: Tensor | None = None,
    sizes: Tensor | None = None,
    unreadable: Collection[int] = (),
    cache_bytes: int = PLENTY,
    device: torch.device = CPU,
    **options: Any,
) -> DecodedImages:
    """Return images with these pixels (N, 3, S, S) uint8. `unreadable` are rows without pixels."""
    count, _, height, width = pixels.shape
    sizes = torch.tensor([[height, width]] * count) if sizes is None else sizes
    rows = np.zeros(count, SNAPSHOT_DTYPE)
    rows["image_id"] = np.random.default_rng(0).integers(0, 2**63, count) if image_ids is None else image_ids.numpy()
    rows["label"] = -1 if labels is None else labels.numpy()
    rows["height"], rows["width"] = sizes.numpy().T
    decoder = cast(ImageDecoder, ArrayDecoder(pixels, sizes, unreadable))
    store = PixelStore(height, device, cache_bytes)
    return DecodedImages(ImageIndex(rows), decoder, store, **{"num_threads": 2, **options})
