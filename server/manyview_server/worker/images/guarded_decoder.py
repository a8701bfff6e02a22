"""Turn an encoded image into resampled pixels, within the limits that hold for every decode.

The memory is bounded here. The time is bounded from outside: the front reads the notes, and replaces a worker that
decodes one image for too long.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

from torch import Tensor

from manyview_server import failpoints
from manyview_server.configuration.networks.preprocessing import Preprocessing
from manyview_server.learn.out_of_memory import is_out_of_memory
from manyview_server.link.decode_notes import ALONE, DECODE, DecodeNotes
from manyview_server.worker.images import color_profile, decoder
from manyview_server.worker.images.decode_memory import DecodeMemory
from manyview_server.worker.images.decoder import DecodeError
from manyview_server.worker.images.rgb import PixelRule


@dataclass(frozen=True, slots=True, kw_only=True)
class Resampled:
    """An image at the requested size, and its original size."""

    pixels: Tensor
    """(3, S, S) uint8."""
    height: int
    width: int
    used_bits: int | None = None
    """The bits that the largest value needs, if the file has 16 bits per channel; otherwise None."""


class GuardedDecoder:
    """Decodes images for the threads of one worker."""

    def __init__(self, failpoint: str, notes: DecodeNotes | None, memory: DecodeMemory) -> None:
        """Without `notes`, the front cannot see the decodes, and their time has no bound."""
        self._failpoint = failpoint
        self._notes = notes
        self._memory = memory

    def decode(
        self,
        data: bytes,
        size: int | Preprocessing,
        rule: PixelRule,
        *,
        request: int = 0,
        item: int,
        alone: bool = False,
    ) -> Resampled:
        """Decode an image and resample it to a square (3, S, S), in sRGB if `rule` says so.

        Args:
            size: S, to which the whole image is squashed, or the preparation that a network needs.
            rule: how its pixels become RGB.
            request: names the image in the notes, together with `item`.
            alone: no other image is decoded at the same time.

        Raises:
            DecodeError: as `decoder.decode` raises it, or DECODE_OUT_OF_MEMORY.
        """
        header = decoder.read_header(data)
        kind = ALONE if alone else DECODE
        noted = self._notes.task(kind, request=request, item=item) if self._notes else nullcontext()
        with self._memory.room(header), noted:
            try:
                failpoints.reach(self._failpoint, item)
                picture = decoder.read_picture(data, header, rule)
                height, width, _ = picture.pixels.shape
                pixels = (
                    decoder.resample(picture.pixels, size)
                    if isinstance(size, Preprocessing)
                    else decoder.resize(picture.pixels, size)
                )
                if picture.profile:
                    pixels = color_profile.to_srgb(pixels, picture.profile)
                return Resampled(pixels=pixels, height=height, width=width, used_bits=picture.used_bits)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                text = f"there was not enough memory to decode {header.width:,} x {header.height:,} pixels"
                raise DecodeError("DECODE_OUT_OF_MEMORY", text) from error
