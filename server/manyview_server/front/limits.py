"""The limits on what callers may send. The services apply and advertise them."""

from __future__ import annotations

from dataclasses import dataclass

from manyview.v1 import model_service_pb2
from manyview_server.config import ServeSettings
from manyview_server.counted_noun import number_of
from manyview_server.front.rpc.resource_names import invalid


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """The limits of one image: its bytes, and the pixels and the longest side that its header states."""

    max_bytes: int
    max_pixels: int
    max_side: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of messages, images, batches and windows."""

    max_message_bytes: int
    image: ImageLimits
    max_batch_images: int
    upload_window_batches: int
    upload_window_bytes: int
    embed_window_batches: int

    @classmethod
    def of(cls, settings: ServeSettings) -> Limits:
        """Return the limits in the settings."""
        return cls(
            max_message_bytes=settings.max_message_bytes,
            image=ImageLimits(
                max_bytes=settings.max_image_bytes,
                max_pixels=settings.max_image_pixels,
                max_side=settings.max_image_side,
            ),
            max_batch_images=settings.max_batch_images,
            upload_window_batches=settings.upload_window_batches,
            upload_window_bytes=settings.upload_window_bytes,
            embed_window_batches=settings.embed_window_batches,
        )

    def message(self) -> model_service_pb2.Limits:
        """Return the limits that GetServerInfo advertises."""
        return model_service_pb2.Limits(
            max_message_bytes=self.max_message_bytes,
            max_image_bytes=self.image.max_bytes,
            max_image_pixels=self.image.max_pixels,
            max_image_side=self.image.max_side,
            max_batch_images=self.max_batch_images,
        )

    def check_batch(self, number: int, num_images: int) -> None:
        """Raise InvalidArgument if a batch has no valid number, no images or too many images."""
        if number < 1:
            raise invalid("batch.number", f"{number} is not a batch number; batches are numbered from 1")
        self.check_count(num_images, "batch.images")

    def check_count(self, num_images: int, field: str) -> None:
        """Raise InvalidArgument if there are no images or too many."""
        if not 1 <= num_images <= self.max_batch_images:
            raise invalid(field, f"{number_of(num_images, 'image')}; a batch has 1 to {self.max_batch_images}")
