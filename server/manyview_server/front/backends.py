"""What the services ask of those who run the workers, so that a service can be tried without any."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from manyview_server.messages.embedding import EmbedDone, EmbedRecipe
from manyview_server.messages.message import Message
from manyview_server.messages.preview import PreviewDone, PreviewImages
from manyview_server.messages.selection import RowSource
from manyview_server.store.records import Snapshot
from manyview_server.supervise.embedders.segment_builder import TableSpec
from manyview_server.supervise.embedders.tables import OpenTable


class Trainers(Protocol):
    """Runs the jobs that the store holds."""

    def wake(self) -> None:
        """A job was queued or is to be cancelled: look at the store now."""


class Embedder(Protocol):
    """Turns images into rows."""

    async def embed(self, recipe: EmbedRecipe, images: Sequence[bytes], *, time_left_s: float) -> EmbedDone:
        """Embed encoded images; `time_left_s` 0 means no limit. Cancelling it drops what is queued. Raises
        ServiceError."""


class Tables(Protocol):
    """Makes and keeps embeddings of data sets."""

    def open(self, spec: TableSpec, snapshot: Snapshot, first_row: int = 0) -> AbstractAsyncContextManager[OpenTable]:
        """The table of these images; see `supervise.tables`."""


class Selector(Protocol):
    """Works on tables of embeddings."""

    def source(
        self, directory: str, num_rows: int, num_features: int, *, unit: bool, num_neighbors: int = 0
    ) -> RowSource:
        """The rows of a table, as requests name them; so many neighbors of each are found. Raises ServiceError."""

    async def ask(self, request: Message) -> Message:
        """The answer to a request of `messages`. Cancelling it ends the work. Raises ServiceError."""


class Previewer(Protocol):
    """Makes views of a few images."""

    async def preview(self, make: Callable[[], Awaitable[PreviewImages]], time_left_s: float) -> PreviewDone:
        """The views of each image of a request, which is made when its turn has come. Raises ServiceError."""
