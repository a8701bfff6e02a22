"""Principal components of the embeddings of a data set: read the request, fit them, and keep them beside the table.

Shapes: n rows, D features, d dimensions after the projection.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manyview.v1 import embed_service_pb2 as pb
from manyview_server.counted_noun import number_of
from manyview_server.front.embeddings.table_requests import (
    TableRequests,
    TableSource,
    embedding_progress,
)
from manyview_server.front.rpc.resource_names import invalid
from manyview_server.front.rpc.response_stream import ResponseStream
from manyview_server.front.rpc.violation_collector import ViolationCollector
from manyview_server.messages.selection import FitPca, PcaFitted
from manyview_server.store import array_file
from manyview_server.supervise.embedders.tables import OpenTable

Rows = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class PcaRequest:
    """The principal components that a caller asks for: a number of them, or as many as keep a share of the variance."""

    num_components: int = 0
    variance_fraction: float = 0.0
    whiten: bool = False

    @property
    def key(self) -> str:
        """A short text that differs between requests. It names the file that keeps the projection."""
        # The class had another name at first. The key keeps that name, so that the files of older servers are found.
        text = repr(self).replace("PcaRequest", "ReadPca", 1)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class PcaProjection:
    """A projection onto principal components: a row x becomes matrix (x - mean)."""

    mean: Rows
    """(D,)."""
    matrix: Rows
    """(d, D)."""
    variance_kept: float

    def apply(self, rows: Rows) -> npt.NDArray[np.floating[Any]]:
        """Project rows (n, D) to (n, d)."""
        with np.errstate(invalid="ignore", over="ignore"):
            return (rows - self.mean) @ self.matrix.T


def read_pca(request: pb.EmbedDatasetRequest, violations: ViolationCollector) -> PcaRequest | None:
    """Read the principal components that are asked for, or return None if the request has no `pca`."""
    if not request.HasField("pca"):
        return None
    pca = request.pca
    match pca.WhichOneof("target"):
        case "num_components":
            if pca.num_components < 1:
                violations.add("pca.num_components", f"{pca.num_components} is less than 1")
        case "variance_fraction":
            if not 0 < pca.variance_fraction <= 1:
                violations.add("pca.variance_fraction", f"{pca.variance_fraction} must be above 0 and at most 1")
        case _:
            violations.add("pca", "set exactly one of num_components and variance_fraction")
    return PcaRequest(num_components=pca.num_components, variance_fraction=pca.variance_fraction, whiten=pca.whiten)


async def fit(
    pca: PcaRequest, stored: TableRequests, source: TableSource, table: OpenTable, stream: ResponseStream[Any]
) -> PcaProjection:
    """Return the projection for the embeddings of `source`. It is fitted once for each version, and kept beside the
    table.

    Raises:
        InvalidArgument: there are fewer features or readable images than it needs.
    """
    await stream.wait(table.complete(), partial(embedding_progress, table))
    path = table.pca_path(pca.key)
    if (kept := await asyncio.to_thread(_read, path)) is not None:
        return kept
    await _check_size(pca, source, table)
    rows = replace(stored.row_source(source, unit=False), directory=str(table.directory))
    request = FitPca(
        source=rows,
        num_components=pca.num_components,
        variance_fraction=pca.variance_fraction,
        whiten=pca.whiten,
    )
    answer = await stored.compute(request, stream, table)
    assert isinstance(answer, PcaFitted)
    return await asyncio.to_thread(_keep, path, answer)


async def _check_size(pca: PcaRequest, source: TableSource, table: OpenTable) -> None:
    readable = source.snapshot.version - len(await table.unreadable())
    most = min(source.spec.num_features, readable - 1)
    if most < 1:
        raise invalid("pca", f"needs at least two readable images, but the data set has {readable}")
    if pca.num_components > most:
        features = number_of(source.spec.num_features, "feature")
        text = f"{features} of {number_of(readable, 'readable image')} allow at most {most}"
        raise invalid("pca.num_components", f"{pca.num_components} is too many; {text}")


def _read(path: Path) -> PcaProjection | None:
    try:
        block = array_file.read(path)
        kept = float(block.meta["variance_kept"])
        return PcaProjection(mean=block.arrays["mean"], matrix=block.arrays["matrix"], variance_kept=kept)
    except (array_file.ArrayFileDamaged, FileNotFoundError, KeyError):
        return None


def _keep(path: Path, answer: PcaFitted) -> PcaProjection:
    mean = np.frombuffer(answer.blobs[0], "<f4")
    matrix = np.frombuffer(answer.blobs[1], "<f4").reshape(-1, len(mean))
    array_file.write(path, {"variance_kept": answer.variance_kept}, {"mean": mean, "matrix": matrix})
    return PcaProjection(mean=mean, matrix=matrix, variance_kept=answer.variance_kept)
