"""What the services ask of those who run the workers, so that a service can be tried without any."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from manyview_server.messages import EmbedDone, PreviewDone, PreviewImages


class Trainers(Protocol):
    """Runs the jobs that the store holds."""

    def wake(self) -> None:
        """A job was queued or is to be cancelled: look at the store now."""


class Embedder(Protocol):
    """Turns images into rows."""

    async def embed(
        self,
        *,
        model: str,
        checkpoint_dir: str,
        backbone: str,
        weights_file: str,
        output: str,
        l2_normalize: bool,
        data_type: str,
        time_left_s: float,
        images: Sequence[bytes],
    ) -> EmbedDone:
        """A row for each image; see `messages.EmbedImages` for the fields. Cancelling it drops what is queued.

        Raises ServiceError.
        """


class Previewer(Protocol):
    """Makes views of a few images."""

    async def preview(self, request: PreviewImages, time_left_s: float) -> PreviewDone:
        """The views of each image. Raises ServiceError."""
