"""ModelService: list models, export their weights, and describe the server."""
# ruff: noqa: N802 (the contract names the methods)

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, BinaryIO

import grpc

from manyview.v1 import model_service_pb2 as pb
from manyview.v1 import model_service_pb2_grpc
from manyview_server.errors import DataLoss, FailedPrecondition, NotFound
from manyview_server.front.convert import dataset_messages
from manyview_server.front.limits import Limits
from manyview_server.front.models.resolution import Models, ResolvedModel
from manyview_server.front.rpc import page_tokens
from manyview_server.front.rpc import resource_names as names
from manyview_server.front.rpc.pages import fitting, page_bytes
from manyview_server.store.jobs.checkpoints import BACKBONE, MANIFEST
from manyview_server.supervise.catalogue.catalogue import Catalogue
from manyview_server.system import open_files

Context = grpc.aio.ServicerContext[Any, Any]

CHUNK_BYTES = 1 << 20
MODEL_KEY = re.compile(r"[0-9]{1,19},[A-Za-z0-9_./-]{1,200}")
"""The form of a page token: the time at which a model was made, in nanoseconds, and its name."""


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """The calls of ModelService."""

    def __init__(self, models: Models, catalogue: Catalogue, limits: Limits, version: str, start_time: float) -> None:
        self._models = models
        self._catalogue = catalogue
        self._limits = limits
        self._version = version
        self._start_time = start_time
        self._page_bytes = page_bytes(limits.max_message_bytes)

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        """Return a page of models. It starts after the model with which the page before ended."""
        job_id = names.train_job_id(request.train_job, "train_job") if request.train_job else ""
        size = page_tokens.page_size(request.page_size, default=100, most=1000)
        scope = f"models/{job_id}"
        last = page_tokens.decode_page_token(scope, request.page_token, MODEL_KEY)
        found = await self._models.list(job_id)
        page, last_key = await asyncio.to_thread(_page, found, last, size, self._page_bytes)
        return pb.ListModelsResponse(models=page, next_page_token=page_tokens.encode_page_token(scope, last_key))

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        """Return one model."""
        return pb.GetModelResponse(model=await self._models.describe(names.model_name(request.name, "name")))

    async def ExportModel(
        self, request: pb.ExportModelRequest, context: Context
    ) -> AsyncIterator[pb.ExportModelResponse]:
        """Stream the weights file in chunks. It is hashed before the first chunk is sent."""
        model = await self._models.resolve(names.model_name(request.name, "name"))
        file, header = await asyncio.to_thread(_open_weights, model)
        with file:
            yield pb.ExportModelResponse(header=header)
            while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
                yield pb.ExportModelResponse(chunk=chunk)

    async def GetServerInfo(self, request: pb.GetServerInfoRequest, context: Context) -> pb.GetServerInfoResponse:
        """Return the version, limits and devices of the server."""
        devices = [
            pb.Device(name=d.name, description=d.description, memory_bytes=d.memory_bytes)
            for d in self._catalogue.devices
        ]
        return pb.GetServerInfoResponse(
            version=self._version,
            limits=self._limits.message(),
            devices=devices,
            start_time=dataset_messages.timestamp(self._start_time),
        )


def _page(found: list[pb.Model], last: str, size: int, max_bytes: int) -> tuple[list[pb.Model], str]:
    """Return the models after the one whose key is `last`, and the key of the last of them if more follow."""
    start = _position_after(found, last) if last else 0
    page = fitting(found[start : start + size], lambda model: model, max_bytes)
    return page, _key(page[-1]) if start + len(page) < len(found) else ""


def _key(model: pb.Model) -> str:
    return f"{model.create_time.ToNanoseconds()},{model.name}"


def _position_after(models: list[pb.Model], key: str) -> int:
    """Return the index at which the page after `key` starts. The model with this key may be gone by now."""
    time_ns, _, name = key.partition(",")
    for index, model in enumerate(models):
        if model.name == name:
            return index + 1
    older = (i for i, model in enumerate(models) if model.create_time.ToNanoseconds() < int(time_ns))
    return next(older, len(models))


def _open_weights(model: ResolvedModel) -> tuple[BinaryIO, pb.ExportHeader]:
    """Open the weights file, so that retention cannot remove it, and return it with its header.

    Raises:
        NotFound: MODEL_NOT_FOUND, it was removed.
        DataLoss: CHECKPOINT_CORRUPT.
    """
    path = _weights_path(model)
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise NotFound("MODEL_NOT_FOUND", f"{model.name} is gone") from error
    try:
        digest = hashlib.file_digest(file, "sha256").digest()
        num_bytes = file.tell()
        if model.checkpoint is not None and digest != _expected_digest(Path(model.checkpoint.directory)):
            raise DataLoss("CHECKPOINT_CORRUPT", f"the weights of {model.name} are damaged on the server's disk")
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file, pb.ExportHeader(model=model.message, num_bytes=num_bytes, sha256=digest)


def _weights_path(model: ResolvedModel) -> Path:
    if model.checkpoint is not None:
        return Path(model.checkpoint.directory) / BACKBONE
    if model.weights_file is None:
        raise FailedPrecondition(
            "WEIGHTS_RANDOM", f"{model.name} has random weights on this server, so there is nothing to export"
        )
    return model.weights_file


def _expected_digest(directory: Path) -> bytes:
    """Return the digest in the checkpoint's manifest, or, if that is damaged, the empty one that no file has."""
    try:
        manifest = json.loads((directory / MANIFEST).read_bytes())
        return bytes.fromhex(manifest["files"][BACKBONE]["sha256"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        if open_files.are_lacking(error):
            raise
        return b""
