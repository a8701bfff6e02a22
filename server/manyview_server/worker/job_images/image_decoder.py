"""Decode the images of a job, each by its row, within the limits that hold for every decode.

Shapes: S pixels on a side of a decoded image.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manyview_server.link.decode_notes import DecodeNotes
from manyview_server.store.images.shards import ShardReader
from manyview_server.worker.images import image_reader
from manyview_server.worker.images.decode_memory import DecodeMemory
from manyview_server.worker.images.decode_size import Snapshot
from manyview_server.worker.images.decoder import DecodeError
from manyview_server.worker.images.guarded_decoder import GuardedDecoder, Resampled
from manyview_server.worker.images.rgb import DEFAULT_RULE, PixelRule
from manyview_server.worker.job_images.findings import Finding, Unreadable

NOTHING: Mapping[int, str] = {}


class ImageDecoder:
    """Reads, checks and decodes images of a data set, on any thread."""

    def __init__(
        self,
        dataset_dir: Path,
        size: int,
        *,
        rule: PixelRule = DEFAULT_RULE,
        notes: DecodeNotes | None = None,
        memory: DecodeMemory | None = None,
        quarantined: Mapping[int, str] = NOTHING,
    ) -> None:
        """
        Args:
            size: S.
            rule: how pixels become RGB.
            notes: the threads note here what they decode, in case it kills them or takes too long.
            memory: the memory that all decodes together may take.
            quarantined: images that must not be decoded, each with its reason.
        """
        self.size = size
        self._rule = rule
        self._quarantined = quarantined
        self._reader = ShardReader(dataset_dir)
        self._guarded = GuardedDecoder("cache.decode", notes, memory or DecodeMemory())

    def decode(self, row: int, place: Any, into: npt.NDArray[np.uint8]) -> Finding:
        """Decode an image into `into` (3, S, S), which stays as it is if the image is unreadable.

        Args:
            row: the number of its row.
            place: the row itself, an element of an array of `store.images.shards.SNAPSHOT_DTYPE`.
        """
        image_id = int(place["image_id"])
        try:
            image = self._resampled(place)
        except DecodeError as error:
            found = Unreadable(image_id=image_id, reason=error.reason, message=str(error))
            return Finding(row, image_id, unreadable=found)
        into[...] = image.pixels.numpy()  # on this thread alone: torch would start a team of threads for each
        return Finding(row, image_id, image.height, image.width, image.used_bits or 0)

    def read_ahead(self, places: Snapshot) -> None:
        """Let the system read the files of these images, (B,) rows, which are decoded soon. It does not wait."""
        for place in places:
            self._reader.read_ahead(int(place["shard"]), int(place["offset"]), int(place["length"]))

    def try_alone(self, rows: Snapshot, suspects: Collection[int]) -> None:
        """Decode the images of `rows` with the ids in `suspects` one at a time, before any other image is decoded.

        If one of them kills the process, the notes name it alone.
        """
        if not suspects:
            return
        for place in rows[np.isin(rows["image_id"], list(suspects))]:
            with suppress(DecodeError):
                self._resampled(place, alone=True)

    def close(self) -> None:
        """Close the files. Call it only while nothing is decoded."""
        self._reader.close()

    def _resampled(self, place: Any, *, alone: bool = False) -> Resampled:
        data = image_reader.read(self._reader, place, self._quarantined)
        return self._guarded.decode(data, self.size, self._rule, item=int(place["image_id"]), alone=alone)
