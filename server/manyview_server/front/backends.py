"""The protocols of the supervisors that the services call, so that a service can be tested without workers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

from manyview_server.messages.embedding import EmbedDone, EmbedRecipe
from manyview_server.messages.message import Json, Message
from manyview_server.messages.preview import PreviewDone, PreviewImages
from manyview_server.messages.selection import RowSource
from manyview_server.messages.timing import StepTimed
from manyview_server.store.images.snapshots import Snapshot
from manyview_server.supervise.catalogue.library_backbones import LibraryBackbone
from manyview_server.supervise.embedders.segment_builder import TableSpec
from manyview_server.supervise.embedders.tables import OpenTable
from manyview_server.supervise.selectors.selector import OnStage


class Trainers(Protocol):
    """Runs the jobs of the store."""

    def wake(self) -> None:
        """Look at the store now, because a job was created or changed."""


class LibraryBackbones(Protocol):
    """Knows the networks of torchvision and timm."""

    async def problem(self, name: str) -> str:
        """Return what is wrong with the name of a backbone, or "" if nothing is."""

    async def find(self, name: str) -> LibraryBackbone | None:
        """Return what is known of a network, or None if that cannot be found out now."""


class WeightsCheck(Protocol):
    """Looks at the weights that jobs want to start with."""

    async def problem(self, weights_dir: Path, settings: Mapping[str, Any]) -> str:
        """Return why a job of these settings cannot start with its weights, or "" if it can."""


class Embedder(Protocol):
    """Embeds images."""

    @property
    def is_starting(self) -> bool:
        """Is the embedding process starting right now?"""

    async def embed(self, recipe: EmbedRecipe, images: Sequence[bytes], *, time_left_s: float) -> EmbedDone:
        """Embed encoded images; `time_left_s` 0 means no limit. Cancelling it drops what is queued. Raises
        ServiceError."""


class Tables(Protocol):
    """Makes and keeps the embeddings of data sets."""

    def open(self, spec: TableSpec, snapshot: Snapshot, first_row: int = 0) -> AbstractAsyncContextManager[OpenTable]:
        """Open the table of these images; see `supervise.embedders.tables`."""


class Selector(Protocol):
    """Works on tables of embeddings."""

    def source(
        self, directory: str, num_rows: int, num_features: int, *, unit: bool, num_neighbors: int = 0
    ) -> RowSource:
        """Return the rows of a table in the form in which requests name them. `num_neighbors` of each will be found.

        Raises ServiceError.
        """

    async def ask(self, request: Message, on_stage: OnStage = ...) -> Message:
        """Return the answer to a request of `messages.selection`. Cancelling it ends the work. Raises ServiceError."""


class Previewer(Protocol):
    """Makes views of a few images."""

    async def preview(self, make: Callable[[], Awaitable[PreviewImages]], time_left_s: float) -> PreviewDone:
        """Return the views of the images of a request, which is made when its turn has come. Raises ServiceError."""


class StepTimer(Protocol):
    """Measures how long a job's parts take on the device."""

    @property
    def device(self) -> str:
        """The name of the device."""

    @property
    def num_threads(self) -> int:
        """The threads of a trainer on it."""

    @property
    def starts_at_once(self) -> bool:
        """Can a process start in tens of milliseconds?"""

    async def time(self, settings: dict[str, Json], *, num_images: int, decode_size: int, wait_s: float) -> StepTimed:
        """Return the times, measured now or earlier. Raises ServiceError."""
