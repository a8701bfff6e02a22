"""The selector runs the right strategy with the right rows and queries. The strategies have tests of their own."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from manyview_server.learn import selection
from manyview_server.link.blocking import Link
from manyview_server.link.frames import MAX_ANSWER_BYTES
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
from manyview_server.store.embeddings.tables import SEGMENT_ROWS, EmbeddingTable, RowError, Segment
from manyview_server.store.images.shards import SNAPSHOT_DTYPE
from manyview_server.store.images.snapshots import SnapshotRows
from manyview_server.system.host_memory import HostMemory
from manyview_server.worker.channel import EXIT_ORPHANED, WorkerChannel
from manyview_server.worker.selecting import selector
from support.learning import worker_harness

N, D = SEGMENT_ROWS + 100, 8
BAD = (3, SEGMENT_ROWS + 7)


@pytest.fixture(scope="module")
def rows() -> np.ndarray[Any, Any]:
    generator = np.random.default_rng(0)
    made = generator.normal(size=(N, D)).astype(np.float32)
    made[50] = made[20]
    made[list(BAD)] = np.nan
    return made


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, rows: np.ndarray[Any, Any]) -> Path:
    made = EmbeddingTable(tmp_path_factory.mktemp("table"))
    for first in range(0, N, SEGMENT_ROWS):
        part = slice(first, first + SEGMENT_ROWS)
        errors = tuple(RowError(row=bad - first, reason="X", message="") for bad in BAD if first <= bad < part.stop)
        made.write(Segment(first=first, rows=rows[part], errors=errors), np.arange(N)[part])
    return made.directory


def source(table: Path | None, **changes: Any) -> RowSource:
    fields: dict[str, Any] = {
        "directory": str(table) if table else "",
        "num_rows": N,
        "num_features": D if table else 0,
        "unit": True,
        "device": "cpu",
        "num_threads": 1,
    }
    return RowSource(**{**fields, **changes})


def blob(*numbers: int) -> bytes:
    return np.array(numbers, "<i8").tobytes()


def select(table: Path | None, strategy: str, count: int, **changes: Any) -> SelectRows:
    fields: dict[str, Any] = {
        "source": source(table),
        "strategy": strategy,
        "count": count,
        "seed": 5,
        "distance": 0.0,
        "num_neighbors": 4,
        "balance": "",
    }
    blobs = [blob(), blob(), b"", b"", blob()]
    for place, name in enumerate(("chosen", "excluded", "query_rows", "vectors", "budgets")):
        blobs[place] = changes.pop(name, blobs[place])
    if "classes" in changes:
        stored = np.zeros(N, SNAPSHOT_DTYPE)
        stored["label"] = changes.pop("classes")
        blobs += SnapshotRows.of(stored).blobs
    return SelectRows(**{**fields, **changes}, blobs=tuple(blobs))


def selected(message: Message) -> tuple[list[int], list[float]]:
    assert isinstance(message, RowsSelected), message
    return np.frombuffer(message.blobs[0], "<i8").tolist(), np.frombuffer(message.blobs[1], "<f4").tolist()


@pytest.fixture(scope="module")
def finite(rows: np.ndarray[Any, Any]) -> tuple[torch.Tensor, np.ndarray[Any, Any]]:
    """The rows that can be selected, scaled to length 1, and their places."""
    places = np.flatnonzero(np.isfinite(rows).all(axis=1))
    return selection.unit_rows(torch.from_numpy(rows[places])), places


@pytest.mark.parametrize("strategy", ["coreset", "minimum_distance", "typicality"])
def test_places_are_those_of_the_table_although_rows_are_left_out(
    table: Path, finite: tuple[torch.Tensor, np.ndarray[Any, Any]], strategy: str
) -> None:
    unit, places = finite
    chosen = torch.tensor([1, 600])  # the places 1 and 602
    calls = {
        "coreset": lambda: selection.coreset(unit, 12, seed=5, chosen=chosen),
        "minimum_distance": lambda: selection.minimum_distance(unit, 0.9, seed=5, count=12, chosen=chosen),
        "typicality": lambda: selection.typicality(unit, 12, num_neighbors=4, chosen=chosen),
    }
    expected = calls[strategy]()
    assert places[600] == 602
    found, scores = selected(selector.answer(select(table, strategy, 12, distance=0.9, chosen=blob(1, 602, BAD[0]))))
    assert found == places[expected.rows.numpy()].tolist()
    assert scores == pytest.approx(expected.scores.tolist())


def test_similarity_by_rows_and_by_vectors(table: Path, rows: np.ndarray[Any, Any]) -> None:
    by_row, _ = selected(selector.answer(select(table, "similarity", 5, query_rows=blob(20), chosen=blob(20))))
    assert by_row[0] == 50
    vector = (3 * rows[20]).astype("<f4").tobytes()
    by_vector, scores = selected(selector.answer(select(table, "similarity", 5, vectors=vector)))
    assert by_vector[:2] == [20, 50]
    assert scores[:2] == pytest.approx([0, 0], abs=1e-3)


def test_random_reads_no_table(table: Path) -> None:
    found, scores = selected(selector.answer(select(None, "random", N - 4, chosen=blob(0, 1), excluded=blob(2, 3))))
    assert sorted(found) == list(range(4, N))
    assert np.isnan(scores).all()


@pytest.mark.parametrize("strategy", ["coreset", "random"])
def test_classes_are_selected_from_within_with_regard_to_all_that_is_chosen(table: Path, strategy: str) -> None:
    classes = np.where(np.arange(N) % 3 == 2, -1, np.arange(N) % 3)
    budgets = {"balance": "given", "budgets": blob(4, 2), "classes": classes}
    where = None if strategy == "random" else table
    found, _ = selected(
        selector.answer(select(where, strategy, 6, chosen=blob(0, 1, 5), excluded=blob(*BAD), **budgets))
    )
    assert [classes[row] for row in found] == [0, 1, 0, 0, 1, 0], "mixed by their budgets"
    assert not {0, 1, 5, *BAD} & set(found)
    shares = {"balance": "equal", "budgets": blob(0, 0), "classes": classes}
    found, _ = selected(selector.answer(select(where, strategy, 7, **shares)))
    assert sorted(classes[row] for row in found) == [0, 0, 0, 0, 1, 1, 1]


def test_neighbors_of_rows_and_of_vectors(
    table: Path, rows: np.ndarray[Any, Any], finite: tuple[torch.Tensor, np.ndarray[Any, Any]]
) -> None:
    unit, places = finite
    for blobs, query in ((blob(20, 610), [20, 610]), (b"", None)):
        vectors = b"" if query else rows[[20, 610]].astype("<f4").tobytes()
        answer = selector.answer(FindNearest(source=source(table), num_neighbors=3, blobs=(blobs, vectors)))
        assert isinstance(answer, NearestFound)
        found = np.frombuffer(answer.blobs[0], "<i8").reshape(2, 3)
        own = torch.tensor([int(np.flatnonzero(places == row)[0]) for row in (20, 610)])
        distances, indices = selection.nearest(unit[own], unit, 3, query_rows=own if query else None)
        np.testing.assert_array_equal(found, places[indices.numpy()])
        np.testing.assert_allclose(np.frombuffer(answer.blobs[1], "<f4").reshape(2, 3), distances, atol=1e-6)


def test_duplicates_are_told_with_their_group_and_how_far_they_are_from_its_first(table: Path) -> None:
    answer = selector.answer(GroupDuplicates(source=source(table), max_distance=0.0))
    assert isinstance(answer, DuplicatesGrouped)
    members, heads = (np.frombuffer(part, "<i8").tolist() for part in answer.blobs[:2])
    assert (members, heads) == ([20, 50], [20, 20])
    assert np.frombuffer(answer.blobs[2], "<f4").tolist() == [0, 0]
    none = selector.answer(GroupDuplicates(source=source(table, num_rows=10), max_distance=0.0))
    assert isinstance(none, DuplicatesGrouped)
    assert none.blobs == (b"", b"", b"")


def test_components_are_of_the_rows_as_they_are(table: Path, rows: np.ndarray[Any, Any]) -> None:
    ask = FitPca(source=source(table, unit=False), num_components=3, variance_fraction=0.0, whiten=True)
    answer = selector.answer(ask)
    assert isinstance(answer, PcaFitted)
    mean, matrix = np.frombuffer(answer.blobs[0], "<f4"), np.frombuffer(answer.blobs[1], "<f4").reshape(3, D)
    whole = rows[np.isfinite(rows).all(axis=1)]
    np.testing.assert_allclose(mean, whole.mean(0), atol=1e-5)
    np.testing.assert_allclose(np.cov((whole - mean) @ matrix.T, rowvar=False), np.eye(3), atol=1e-4)
    assert 3 / D < answer.variance_kept < 0.6
    ask = FitPca(source=source(table, unit=False), num_components=0, variance_fraction=0.99, whiten=False)
    answer = selector.answer(ask)
    assert isinstance(answer, PcaFitted)
    assert len(answer.blobs[1]) == 4 * D * D


def test_a_damaged_segment_is_named(table: Path, tmp_path: Path) -> None:
    for path in table.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    damaged = tmp_path / "segment-00000001"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert selector.answer(select(tmp_path, "coreset", 2)) == TableDamaged(segment=1)
    assert selector.answer(select(tmp_path, "coreset", 2, source=source(tmp_path, num_features=9))) == TableDamaged(
        segment=0
    )
    assert isinstance(
        selector.answer(select(tmp_path, "coreset", 2, source=source(tmp_path, num_rows=9))), RowsSelected
    )


def test_what_cannot_be_done_is_said(table: Path) -> None:
    answer = selector.answer(select(table, "coreset", N))
    assert isinstance(answer, SelectionFailed)
    assert (answer.code, answer.reason) == ("INVALID_ARGUMENT", "SELECTION_IMPOSSIBLE")
    assert f"count must be from 0 to {N - 2}" in answer.message
    assert isinstance(selector.answer(select(table, "best", 1)), SelectionFailed)


def test_the_process_answers_one_after_the_other_behind_everybody_else(table: Path) -> None:
    with worker_harness.Worker("selector") as worker:
        for count in (3, 4):
            worker.send(select(table, "coreset", count))
            found, _ = selected(worker.until(RowsSelected, lambda _: True))
            assert len(found) == count
        niceness = Path(f"/proc/{worker.process.pid}/stat").read_text().rpartition(")")[2].split()[16]
        assert int(niceness) >= selector.NICENESS
        assert worker.close() == EXIT_ORPHANED


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_a_lack_of_memory_is_told(table: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def coreset(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(selection, "coreset", coreset)
    reply = selector.answer(select(table, "coreset", 5))
    assert isinstance(reply, SelectionFailed)
    assert (reply.code, reply.reason) == ("RESOURCE_EXHAUSTED", "DEVICE_OUT_OF_MEMORY")


def test_an_answer_that_is_too_large_for_the_link_is_replaced_by_the_reason() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        fitted = PcaFitted(variance_kept=1.0, blobs=(bytes(MAX_ANSWER_BYTES), b"x"))
        selector.send_answer(WorkerChannel(Link(theirs)), fitted)
        failed = Link(ours).receive()
    assert isinstance(failed, SelectionFailed)
    assert (failed.code, failed.reason) == ("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE")
    assert failed.message == "a PcaFitted may carry at most 67,108,864 bytes of data (got 67,108,865)"


def test_a_table_that_does_not_fit_into_memory_is_refused_before_it_is_read(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def memory(available: int) -> None:
        found = HostMemory(limit_bytes=1 << 40, available_bytes=available)
        monkeypatch.setattr(selector, "host_memory", lambda: found)

    memory(4 * N * D)
    assert isinstance(selector.answer(select(table, "coreset", 2)), RowsSelected)
    memory(4 * N * D - 1)
    failed = selector.answer(select(table, "coreset", 2))
    assert isinstance(failed, SelectionFailed)
    assert (failed.code, failed.reason) == ("RESOURCE_EXHAUSTED", "DEVICE_OUT_OF_MEMORY")
