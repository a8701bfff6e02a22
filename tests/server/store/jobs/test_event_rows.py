from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from manyview_server.errors import NotFound
from manyview_server.store.database.schema import MIGRATIONS
from manyview_server.store.event_payloads import Log, Scalars
from manyview_server.store.jobs import event_rows, events
from manyview_server.store.jobs.event_rows import COLUMNS, event_from_row, insert, job_pk, trim, with_scalars
from manyview_server.store.records import Event, NewEvent
from manyview_server.store.text_limit import MAX_TEXT_CHARACTERS


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    """A database with one job, "j", in row 1."""
    opened = sqlite3.connect(":memory:", isolation_level=None)
    opened.executescript(MIGRATIONS[0])
    opened.execute(
        "INSERT INTO job (train_job_id, uid, dataset_id, dataset_uid, num_images, method, settings, state, create_time,"
        " server_version) VALUES ('j', 'u', 'a', 'v', 0, 'moco', '{}', 'QUEUED', 0, '0')"
    )
    yield opened
    opened.close()


def lines(count: int) -> list[tuple[float, NewEvent]]:
    return [(float(n), NewEvent(payload=Log(level="info", text=str(n)), step=n)) for n in range(count)]


def test_events_continue_the_sequence_and_read_back_as_they_were_written(connection: sqlite3.Connection) -> None:
    written = insert(connection, 1, lines(2)) + insert(connection, 1, []) + insert(connection, 1, lines(3))
    assert [event.sequence for event in written] == [1, 2, 3, 4, 5]
    assert [
        event_from_row(row) for row in connection.execute(f"SELECT {COLUMNS} FROM event ORDER BY sequence")
    ] == written


def test_a_text_that_is_too_long_is_cut_and_everybody_sees_the_same(connection: sqlite3.Connection) -> None:
    text = NewEvent(payload=Log(level="info", text="x" * 100_000))
    (written,) = insert(connection, 1, [(0.0, text)])
    assert written.payload == Log(level="info", text="x" * (MAX_TEXT_CHARACTERS - 1) + "…")
    assert event_from_row(connection.execute(f"SELECT {COLUMNS} FROM event").fetchone()) == written


def test_the_oldest_go_with_some_more_when_the_bound_is_passed(connection: sqlite3.Connection) -> None:
    insert(connection, 1, lines(80))
    assert trim(connection, 1, 80) == 1
    insert(connection, 1, lines(1))
    assert trim(connection, 1, 80) == 12
    held = connection.execute("SELECT min(sequence), max(sequence), count(*) FROM event").fetchone()
    assert held == (12, 81, 70)


def test_one_commit_removes_no_more_than_a_piece_and_the_next_ones_the_rest(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_rows, "MAX_TRIM", 20)
    insert(connection, 1, lines(100))
    assert [trim(connection, 1, 40) for _ in range(5)] == [21, 41, 61, 61, 61]
    assert connection.execute("SELECT count(*) FROM event").fetchone() == (40,)


def test_the_pieces_of_a_long_log_are_small_and_keep_up_with_what_comes() -> None:
    assert event_rows.TRIM_MORE <= 1_000
    assert 2 * events.MAX_PENDING <= event_rows.MAX_TRIM <= 20_000


def test_scalars_are_narrowed_to_the_names_asked_for() -> None:
    scalars = Scalars(values={"loss": 1.0, "rate": 2.0})
    event = Event(sequence=1, time=0.0, attempt=1, step=1, epoch=0, payload=scalars)
    assert with_scalars(event, frozenset()) is event
    narrowed = with_scalars(event, frozenset({"loss", "knn_top1"}))
    assert narrowed is not None
    assert narrowed.payload == Scalars(values={"loss": 1.0})
    assert with_scalars(event, frozenset({"knn_top1"})) is None


def test_an_unknown_job_is_not_found(connection: sqlite3.Connection) -> None:
    assert job_pk(connection, "j") == 1
    with pytest.raises(NotFound, match="'k'"):
        job_pk(connection, "k")
