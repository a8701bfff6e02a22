"""Find the model that a name stands for: a checkpoint of a job, or a plain backbone, and the file of its weights."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from manyview.v1 import model_service_pb2 as pb
from manyview_server.configuration.networks.preprocessing import DEFAULT, Preprocessing
from manyview_server.configuration.violations import did_you_mean
from manyview_server.errors import FailedPrecondition, NotFound
from manyview_server.front.backends import LibraryBackbones
from manyview_server.front.convert import embedding_messages
from manyview_server.front.rpc.resource_names import ModelName, shown
from manyview_server.messages.embedding import ModelKey
from manyview_server.store.records import Checkpoint, Job
from manyview_server.store.store import Store
from manyview_server.supervise.catalogue.catalogue import Backbone, Catalogue

Messages = list[pb.Model]

MAX_KNOWN = 1_000
"""The most checkpoints that are remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedModel:
    """A model and its files: a checkpoint, or a plain backbone with or without a file of weights."""

    message: pb.Model
    checkpoint: Checkpoint | None = None
    weights_file: Path | None = None

    @property
    def name(self) -> str:
        """The exact resource name."""
        return self.message.name

    def key(self, output: str) -> ModelKey:
        """Return what the embedder needs to know of the model.

        Raises:
            FailedPrecondition: NO_PROJECTION_HEAD, the model does not have this output.
        """
        if output == "projection" and self.message.projection_dim == 0:
            message = f"{self.name} has no projection head, so its only output is that of its backbone"
            raise FailedPrecondition("NO_PROJECTION_HEAD", message)
        return ModelKey(
            name=self.name,
            checkpoint_dir=self.checkpoint.directory if self.checkpoint else "",
            backbone=self.message.backbone,
            weights_file=str(self.weights_file or ""),
            output=output,
        )

    def num_features(self, output: str) -> int:
        """Return the number of features of an output, or 0 if the model does not state it: that of tokens, or of a
        library."""
        known = {"projection": self.message.projection_dim, "backbone": self.message.feature_dim}
        return known.get(output, 0)


class Models:
    """Finds models by their names. It remembers checkpoints until the next commit, to spare the database."""

    def __init__(self, store: Store, catalogue: Catalogue, library_backbones: LibraryBackbones) -> None:
        self._store = store
        self._catalogue = catalogue
        self._library_backbones = library_backbones
        self._num_commits = 0
        self._known: dict[ModelName, ResolvedModel] = {}
        """Checkpoints, as they were after `_num_commits` commits."""

    async def resolve(self, name: ModelName) -> ResolvedModel:
        """Return the model of this name. Raises NotFound TRAIN_JOB_NOT_FOUND or MODEL_NOT_FOUND."""
        if name.backbone:
            return await self._resolve_backbone(name.backbone)
        num_commits = self._store.num_commits
        if num_commits != self._num_commits or len(self._known) >= MAX_KNOWN:
            self._known.clear()
            self._num_commits = num_commits
        if (known := self._known.get(name)) is not None:
            return known
        found = await self._resolve_checkpoint(name)
        if num_commits == self._num_commits:  # another call may have seen a commit since
            self._known[name] = found
        return found

    async def _resolve_checkpoint(self, name: ModelName) -> ResolvedModel:
        await self._job(name.train_job_id)
        checkpoint = await self._store.checkpoints.get(name.train_job_id, name.step)
        return ResolvedModel(message=embedding_messages.checkpoint_model(checkpoint), checkpoint=checkpoint)

    async def resolve_and_pin(self, name: ModelName) -> ResolvedModel:
        """Return the model of this name, for an answer that names it. Its checkpoint is pinned: it is kept from now on.

        Raises the errors of `resolve`.
        """
        model = await self.resolve(name)
        if model.checkpoint is not None and not model.checkpoint.pinned:
            await self._store.checkpoints.pin(model.checkpoint.train_job_id, model.checkpoint.step)
        return model

    async def describe(self, name: ModelName) -> pb.Model:
        """Return a model with all that is known of it. A worker is asked about the network of a library.

        Raises NotFound TRAIN_JOB_NOT_FOUND or MODEL_NOT_FOUND.
        """
        message = (await self.resolve(name)).message
        if "/" not in message.backbone or message.train_job:
            return message
        found = await self._library_backbones.find(message.backbone)
        if found is not None and found.problem:
            raise NotFound("MODEL_NOT_FOUND", found.problem)
        if found is not None and found.preprocessing and not message.HasField("preprocessing"):
            _state(message, found.preprocessing)
        return message

    async def list(self, train_job_id: str) -> Messages:
        """Return all checkpoints, newest first, and then the plain backbones; or only the checkpoints of one job."""
        checkpoints = await self._store.checkpoints.list(train_job_id or None)
        return await asyncio.to_thread(self._messages, checkpoints, plain=not train_job_id)

    def _messages(self, checkpoints: Sequence[Checkpoint], *, plain: bool) -> Messages:
        backbones = self._catalogue.backbones if plain else ()
        found = [_plain_backbone(backbone, self._store.weights_dir).message for backbone in backbones]
        return [*map(embedding_messages.checkpoint_model, checkpoints), *found]

    async def _job(self, train_job_id: str) -> Job:
        """Return a job. If only a backbone has that name, the error says how to name the backbone."""
        try:
            return await self._store.jobs.get(train_job_id)
        except NotFound as error:
            if all(info.name != train_job_id for info in self._catalogue.backbones):
                raise
            message = f"no train job {train_job_id!r}; the plain backbone is 'backbones/{train_job_id}'"
            raise NotFound(error.reason, message, metadata=error.metadata) from error

    async def _resolve_backbone(self, name: str) -> ResolvedModel:
        info = next((info for info in self._catalogue.backbones if info.name == name), None)
        if info is None and "/" in name:  # of a library: a worker knows which names exist, see `describe`
            info = Backbone(name=name, feature_dim=0, num_parameters=0)
        if info is None:
            known = [info.name for info in self._catalogue.backbones]
            hint = did_you_mean(name, known) or f"; known: {', '.join(known)}"
            raise NotFound("MODEL_NOT_FOUND", f"there is no backbone {shown(name)}{hint}")
        return await asyncio.to_thread(_plain_backbone, info, self._store.weights_dir)


def _plain_backbone(info: Backbone, weights_dir: Path) -> ResolvedModel:
    path = weights_dir / f"{info.name}.safetensors"
    found = path.is_file()
    message = pb.Model(
        name=f"backbones/{info.name}",
        backbone=info.name,
        feature_dim=info.feature_dim,
        num_bytes=path.stat().st_size if found else 0,
        weights="file" if found else "random",
    )
    if "/" not in info.name:
        _state(message, DEFAULT)
    with suppress(ValueError):  # the embedder says what is wrong with it
        if found and (stated := Preprocessing.beside(path)):
            _state(message, stated)
    return ResolvedModel(message=message, weights_file=path if found else None)


def _state(message: pb.Model, preprocessing: Preprocessing) -> None:
    message.image_size = preprocessing.image_size
    message.preprocessing.CopyFrom(embedding_messages.preprocessing(preprocessing))
