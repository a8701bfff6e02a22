"""The selector: a process that works on tables of embeddings, one request at a time, with a low priority.

Because it has a process of its own, it does not slow down the embedder, it does not use the memory of the front, and it
can be ended when its caller goes away.

Shapes: N rows of the table, n of them finite, D features, Q queries, K neighbors.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from manyview_server.counted_noun import number_of
from manyview_server.errors import ServiceError
from manyview_server.learn import pca, selection
from manyview_server.learn.out_of_memory import is_out_of_memory
from manyview_server.learn.selection import Selection
from manyview_server.link.frames import MessageTooLarge
from manyview_server.messages.message import Message
from manyview_server.messages.selection import (
    DuplicatesGrouped,
    FindNearest,
    FitPca,
    GroupDuplicates,
    NearestFound,
    PcaFitted,
    RowSource,
    RowsSelected,
    SelectionFailed,
    SelectRows,
    TableDamaged,
)
from manyview_server.store.embeddings.tables import SEGMENT_ROWS, EmbeddingTable, SegmentDamaged
from manyview_server.store.images.snapshots import SnapshotRows
from manyview_server.system.host_memory import host_memory
from manyview_server.worker.channel import WorkerChannel

NICENESS = 10
"""When cores are short, the processes that embed or train get them first."""
CHUNK_ROWS = 16_384
DEVICE_MEMORY_FRACTION = 0.5
"""The share of a device's free memory that a table may take. Larger tables stay on the CPU."""


def run(channel: WorkerChannel) -> None:
    """Answer requests until the link ends."""
    os.nice(NICENESS)
    while True:
        send_answer(channel, answer(channel.receive()))


def send_answer(channel: WorkerChannel, answered: Message) -> None:
    """Send an answer, or an error if the answer is too large for the link."""
    try:
        channel.send(answered)
    except MessageTooLarge as error:
        channel.send(SelectionFailed(code=error.code, reason=error.reason, message=error.message))


def answer(message: Message) -> Message:
    """Return the answer to one request."""
    try:
        match message:
            case SelectRows():
                return _select(message)
            case FindNearest():
                return _nearest(message)
            case GroupDuplicates():
                return _duplicates(message)
            case FitPca():
                return _fit(message)
    except SegmentDamaged as error:
        return TableDamaged(segment=error.index)
    except ServiceError as error:
        return SelectionFailed(code=error.code, reason=error.reason, message=error.message)
    except ValueError as error:
        return SelectionFailed(code="INVALID_ARGUMENT", reason="SELECTION_IMPOSSIBLE", message=str(error))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return SelectionFailed(
            code="RESOURCE_EXHAUSTED", reason="DEVICE_OUT_OF_MEMORY", message="the device does not have enough memory"
        )
    raise AssertionError(f"a selector gets no {type(message).__name__}")


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """The finite rows of a table."""

    rows: Tensor
    """(n, D), on the device."""
    places: Tensor
    """(n,) int64 on the CPU, ascending: the row of the table that each of `rows` is."""
    index: Tensor
    """(N,) int64 on the CPU: the position in `rows` of each row of the table, -1 for rows that are not finite."""

    def at(self, places: Tensor) -> Tensor:
        """Return the positions in `rows` of these rows of the table, on the device. Rows that are not finite are left
        out."""
        found = self.index[places]
        return found[found >= 0].to(self.rows.device)


def load(source: RowSource) -> Loaded:
    """Read the table and verify it. Raises SegmentDamaged, and MemoryError if it takes more than this process may
    use."""
    torch.set_num_threads(source.num_threads)
    num_features = source.num_features if source.directory else 0
    device = _device(source, num_features)
    # Check first: the kernel grants more memory than there is, and kills the process later.
    if device.type == "cpu" and 4 * source.num_rows * num_features > host_memory().available_bytes:
        raise MemoryError(
            f"{number_of(source.num_rows, 'row')} of {number_of(num_features, 'feature')} do not fit into memory"
        )
    rows = torch.empty(source.num_rows, num_features, device=device)
    places = [torch.empty(0, dtype=torch.int64)]
    filled = 0
    for segment in EmbeddingTable(Path(source.directory)).read_all(source.num_rows) if source.directory else ():
        if segment.rows.shape[1] != num_features:
            raise SegmentDamaged(segment.first // SEGMENT_ROWS, number_of(segment.rows.shape[1], "feature"))
        finite = np.flatnonzero(np.isfinite(segment.rows).all(axis=1))
        part = torch.from_numpy(segment.rows[finite])
        rows[filled : filled + len(part)] = selection.unit_rows(part) if source.unit else part
        places.append(torch.from_numpy(finite) + segment.first)
        filled += len(part)
    found = torch.cat(places) if source.directory else torch.arange(source.num_rows)
    index = torch.full((source.num_rows,), -1)
    index[found] = torch.arange(len(found))
    return Loaded(rows=rows[: len(found)], places=found, index=index)


def _device(source: RowSource, num_features: int) -> torch.device:
    """Return the device that is asked for, or the CPU if the table does not fit there."""
    device = torch.device(source.device)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if 4 * source.num_rows * num_features > DEVICE_MEMORY_FRACTION * free:
            return torch.device("cpu")
    return device


def _select(message: SelectRows) -> RowsSelected:
    loaded = load(message.source)
    chosen, excluded = (loaded.at(_int64(blob)) for blob in message.blobs[:2])
    taken = torch.cat([chosen, excluded])
    strategy = partial(_strategy, message, _queries(message.source, loaded, *message.blobs[2:4]))
    if message.balance:
        found = _balanced(message, strategy, loaded, chosen, taken)
    else:
        found = strategy(loaded.rows, message.count, chosen, taken)
    rows = loaded.places[found.rows.cpu()]
    return RowsSelected(blobs=(_bytes(rows, np.int64), _bytes(found.scores, np.float32)))


def _balanced(
    message: SelectRows,
    strategy: Callable[[Tensor, int, Tensor, Tensor], Selection],
    loaded: Loaded,
    chosen: Tensor,
    taken: Tensor,
) -> Selection:
    """Run the strategy within each class. Rows that are chosen already count in all classes, not only in their own."""
    snapshot = SnapshotRows.received(message.dataset_dir, message.blobs[5:])
    classes = torch.from_numpy(snapshot.column("label"))[loaded.places].long()
    budgets = _int64(message.blobs[4])
    free = torch.ones(len(loaded.places), dtype=torch.bool)
    free[taken.cpu()] = False
    available = torch.bincount(classes[free & (classes >= 0)], minlength=len(budgets))
    if message.balance != "given":
        share = selection.equal_budgets if message.balance == "equal" else selection.proportional_budgets
        budgets = share(available, message.count)

    def within(candidates: Tensor, count: int) -> Selection:
        rows = loaded.rows[torch.cat([candidates.to(chosen.device), chosen])]
        before = torch.arange(len(candidates), len(rows), device=rows.device)
        return strategy(rows, count, before, before)

    return selection.balanced(classes, dict(enumerate(budgets.tolist())), within, free=free)


def _strategy(
    message: SelectRows, queries: Tensor, rows: Tensor, count: int, chosen: Tensor, taken: Tensor
) -> Selection:
    """Run the strategy. It keeps away from `chosen` rows, if it is one that does, and never selects `taken` ones."""
    match message.strategy:
        case "random":
            return selection.random(len(rows), count, seed=message.seed, chosen=taken)
        case "coreset":
            return selection.coreset(rows, count, seed=message.seed, chosen=chosen)
        case "minimum_distance":
            most = count or None
            return selection.minimum_distance(rows, message.distance, seed=message.seed, count=most, chosen=chosen)
        case "typicality":
            return selection.typicality(rows, count, num_neighbors=message.num_neighbors, chosen=chosen)
        case "similarity":
            return selection.similarity(rows, queries, count, chosen=chosen)
    raise ValueError(f"there is no strategy {message.strategy!r}")


def _nearest(message: FindNearest) -> NearestFound:
    loaded = load(message.source)
    k = message.num_neighbors
    queries = _queries(message.source, loaded, *message.blobs)
    own = loaded.at(_int64(message.blobs[0])) if message.blobs[0] else None
    distances, found = selection.nearest(queries, loaded.rows, k, query_rows=own)
    rows = loaded.places[found.cpu()]
    return NearestFound(num_neighbors=k, blobs=(_bytes(rows, np.int64), _bytes(distances, np.float32)))


def _queries(source: RowSource, loaded: Loaded, own: bytes, vectors: bytes) -> Tensor:
    """Return the queries (Q, D) on the device: rows of the table, or vectors of the caller."""
    if own:
        return loaded.rows[loaded.at(_int64(own))]
    queries = torch.from_numpy(np.frombuffer(vectors, "<f4").reshape(-1, loaded.rows.shape[1] or 1).copy())
    return (selection.unit_rows(queries) if source.unit else queries).to(loaded.rows.device)


def _duplicates(message: GroupDuplicates) -> DuplicatesGrouped:
    loaded = load(message.source)
    first = selection.near_duplicates(loaded.rows, message.max_distance)
    in_group = torch.bincount(first, minlength=len(first))[first] > 1
    members = in_group.nonzero()[:, 0]
    members = members[first[members].argsort(stable=True)]
    heads = first[members]
    parts = zip(torch.split(members, CHUNK_ROWS), torch.split(heads, CHUNK_ROWS), strict=True)
    distances = [torch.linalg.vector_norm(loaded.rows[one] - loaded.rows[head], dim=1) for one, head in parts]
    rows, groups = (_bytes(loaded.places[part.cpu()], np.int64) for part in (members, heads))
    return DuplicatesGrouped(blobs=(rows, groups, _bytes(torch.cat(distances), np.float32)))


def _fit(message: FitPca) -> PcaFitted:
    loaded = load(message.source)
    whole = pca.fit(torch.split(loaded.rows, CHUNK_ROWS))
    found = whole.first(message.num_components) if message.num_components else whole.keeping(message.variance_fraction)
    parts = (found.mean, found.matrix(whiten=message.whiten))
    return PcaFitted(variance_kept=found.variance_kept, blobs=tuple(_bytes(part, np.float32) for part in parts))


def _int64(blob: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(blob, "<i8").astype(np.int64))


def _bytes(values: Tensor, dtype: Any) -> bytes:
    return values.cpu().numpy().astype(np.dtype(dtype).newbyteorder("<")).tobytes()
