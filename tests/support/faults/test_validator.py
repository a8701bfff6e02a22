"""The validator finds each kind of violation, and none in a clean history."""

from __future__ import annotations

import hashlib
import io
import json
import sqlite3
import tarfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.faults.evidence import DatasetEvidence, Evidence, JobEvidence, ListedImage, database_damage, read_shard
from support.faults.history import History, Record, read
from support.faults.validator import image_id_of, validate

Histories = dict[str, list[Record]]
NUM_IMAGES = 5


def sha256(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def event(sequence: int, kind: str = "scalars", *, step: int = 0, attempt: int = 1, **payload: Any) -> Record:
    place = {"job": "j", "sequence": sequence, "attempt": attempt, "step": step, "epoch": 1, "time": str(sequence)}
    return {**place, "kind": kind, "payload": json.dumps(payload, sort_keys=True)}


def change(sequence: int, before: str, after: str, attempt: int = 1) -> Record:
    return event(sequence, "state", attempt=attempt, **dict[str, Any]({"from": before, "to": after}))


def log() -> list[Record]:
    """A job that was killed once after step 2, of which step 1 is in a checkpoint."""
    return [
        change(1, "UNSPECIFIED", "QUEUED", attempt=0),
        change(2, "QUEUED", "STARTING"),
        change(3, "STARTING", "RUNNING"),
        event(4, step=1, loss=3.0),
        event(5, step=2, loss=2.0),
        change(6, "RUNNING", "RECOVERING"),
        change(7, "RECOVERING", "STARTING", attempt=2),
        event(8, "rollback", step=1, attempt=2, to_step=1, superseded_after_sequence=4),
        change(9, "STARTING", "RUNNING", attempt=2),
        event(10, step=2, attempt=2, loss=2.0),
        change(11, "RUNNING", "SUCCEEDED", attempt=2),
    ]


def scenario() -> tuple[Histories, Evidence]:
    """All is well."""
    uploader = [{"op": "acked", "dataset": "d", "key": f"{n}.jpg", "sha256": sha256(n)} for n in range(NUM_IMAGES)]
    subscriber = [*({"op": "event", **event} for event in log()), {"op": "ended", "job": "j"}]
    listed = [
        ListedImage(image_id=image_id_of(sha256(n)), key=f"{n}.jpg", num_bytes=n + 100) for n in range(NUM_IMAGES)
    ]
    dataset = DatasetEvidence(
        num_images=NUM_IMAGES, listed=listed, in_shards=[sha256(number) for number in range(NUM_IMAGES)]
    )
    job = JobEvidence(state="SUCCEEDED", last_sequence=11, events=log())
    histories = {"uploader": uploader, "first": subscriber, "second": list(subscriber)}
    return histories, Evidence(datasets={"d": dataset}, jobs={"j": job})


def test_a_scenario_in_which_all_is_well_has_no_violation_and_its_numbers_are_counted() -> None:
    verdict = validate(*scenario())
    verdict.assert_clean()
    assert verdict.figures() == {
        "acknowledged": NUM_IMAGES,
        "lost": 0,
        "duplicated": 0,
        "events": 22,
        "gaps": 0,
        "repeated": 0,
        "orphans": 0,
    }


def test_an_image_acknowledged_twice_counts_once_and_one_never_acknowledged_may_be_there() -> None:
    histories, evidence = scenario()
    histories["uploader"] = [histories["uploader"][0], *histories["uploader"][:3]]
    verdict = validate(histories, evidence)
    verdict.assert_clean()
    assert verdict.acknowledged == 3


def test_a_part_of_a_log_is_judged_from_the_state_before_it() -> None:
    histories, evidence = scenario()
    job = replace(evidence.jobs["j"], events=log()[5:], after=5, state_before="RUNNING")
    verdict = validate(histories, replace(evidence, jobs={"j": job}))
    verdict.assert_clean()
    assert verdict.events == 12
    assert validate(histories, replace(evidence, jobs={"j": replace(job, state_before="")})).violations


def of_dataset(**changed: Any) -> Callable[[Histories, Evidence], Evidence]:
    """The evidence with something else about the data set; a callable computes it from what was there."""

    def apply(_: Histories, evidence: Evidence) -> Evidence:
        before = evidence.datasets["d"]
        values = {name: value(getattr(before, name)) if callable(value) else value for name, value in changed.items()}
        return replace(evidence, datasets={"d": replace(before, **values)})

    return apply


def of_job(**changed: Any) -> Callable[[Histories, Evidence], Evidence]:
    def apply(_: Histories, evidence: Evidence) -> Evidence:
        before = evidence.jobs["j"]
        values = {name: value(getattr(before, name)) if callable(value) else value for name, value in changed.items()}
        return replace(evidence, jobs={"j": replace(before, **values)})

    return apply


def of_subscriber(edit: Callable[[list[Record]], list[Record]]) -> Callable[[Histories, Evidence], Evidence]:
    def apply(histories: Histories, evidence: Evidence) -> Evidence:
        histories["second"] = edit(histories["second"])
        return evidence

    return apply


def without_dataset(_: Histories, evidence: Evidence) -> Evidence:
    return replace(evidence, datasets={})


def drop(index: int) -> Callable[[list[Any]], list[Any]]:
    return lambda items: [*items[:index], *items[index + 1 :]]


def repeat(index: int) -> Callable[[list[Any]], list[Any]]:
    return lambda items: [*items[: index + 1], *items[index:]]


def swap(index: int) -> Callable[[list[Any]], list[Any]]:
    return lambda items: [*items[:index], items[index + 1], items[index], *items[index + 2 :]]


def put(index: int, **fields: Any) -> Callable[[list[Record]], list[Record]]:
    return lambda records: [*records[:index], {**records[index], **fields}, *records[index + 1 :]]


@pytest.mark.parametrize(
    ("edit", "check", "figure"),
    [
        (of_dataset(listed=drop(2), num_images=4), "V1", "lost"),
        (of_dataset(in_shards=drop(2)), "V1", "lost"),
        (of_dataset(in_shards=lambda found: [sha256(99), *found[1:]]), "V1", "lost"),
        (without_dataset, "V1", None),
        (of_dataset(listed=repeat(2), num_images=6), "V2", "duplicated"),
        (of_dataset(in_shards=repeat(2)), "V2", "duplicated"),
        (of_dataset(num_images=6), "V2", None),
        (of_dataset(in_shards=lambda found: [*found, sha256(99)]), "V6", None),
        (of_dataset(damage=["shard-00000000.tar: does not read"]), "V6", None),
        (of_job(events=drop(4)), "V3", None),
        (of_job(events=repeat(4)), "V3", None),
        (of_job(last_sequence=12), "V3", "gaps"),
        (of_job(events=put(9, step=1)), "V3", None),
        (of_job(events=put(7, payload='{"superseded_after_sequence": 5}')), "V3", None),
        (of_subscriber(drop(4)), "V3", "gaps"),
        (of_subscriber(drop(0)), "V3", "gaps"),
        (of_subscriber(drop(10)), "V3", "gaps"),
        (of_subscriber(repeat(4)), "V3", "repeated"),
        (of_subscriber(swap(4)), "V3", "repeated"),
        (of_subscriber(put(4, payload='{"loss": 2.5}')), "V3", None),
        (of_subscriber(put(4, attempt=2)), "V3", None),
        (of_subscriber(lambda records: [*records, {"op": "event", **event(12)}]), "V3", None),
        (of_job(state="FAILED"), "V4", None),
        (of_job(events=put(5, payload='{"from": "RUNNING", "to": "QUEUED"}')), "V4", None),
        (of_job(events=put(5, payload='{"from": "STARTING", "to": "RECOVERING"}')), "V4", None),
        (of_job(events=put(10, payload='{"from": "RUNNING", "to": "LOST"}'), state="LOST"), "V4", None),
        (of_job(events=put(9, attempt=1)), "V4", None),
        (lambda _, evidence: replace(evidence, left_over=["process 7 is a zombie"]), "V5", "orphans"),
        (lambda _, evidence: replace(evidence, damage=["database: row 3 missing from index"]), "V6", None),
    ],
)
def test_each_violation_is_found(
    edit: Callable[[Histories, Evidence], Evidence], check: str, figure: str | None
) -> None:
    histories, evidence = scenario()
    verdict = validate(histories, edit(histories, evidence))
    assert any(words.startswith(check) for words in verdict.violations), verdict.violations
    assert figure is None or verdict.figures()[figure] > 0
    with pytest.raises(AssertionError, match=check):
        verdict.assert_clean()


def write_shard(path: Path, *, wrong_digest: bool = False, records: bool = True) -> list[str]:
    digests = []
    with path.open("wb") as file, tarfile.open(fileobj=file, mode="w:", format=tarfile.USTAR_FORMAT) as tar:
        for number in range(3):
            data = bytes([number]) * (500 + 100 * number)
            digests.append(hashlib.sha256(data).hexdigest())
            meta = {"sha256": sha256(0) if wrong_digest else digests[-1]}
            for suffix, content in (("jpg", data), ("json", json.dumps(meta).encode()))[: 2 if records else 1]:
                member = tarfile.TarInfo(f"{number:016x}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return digests


def test_a_whole_shard_reads_without_a_word(tmp_path: Path) -> None:
    digests = write_shard(tmp_path / "shard.tar")
    assert read_shard(tmp_path / "shard.tar") == (digests, [])
    (tmp_path / "empty.tar").touch()
    assert read_shard(tmp_path / "empty.tar") == ([], [])


def test_a_torn_tail_other_bytes_and_missing_records_of_a_shard_are_found(tmp_path: Path) -> None:
    shard = tmp_path / "shard.tar"
    digests = write_shard(shard)
    whole = shard.read_bytes()
    shard.write_bytes(whole[:1700])
    assert read_shard(shard)[1]
    shard.write_bytes(whole.rstrip(b"\0") + bytes(512) + b"torn" + bytes(508))
    assert read_shard(shard)[1]
    shard.write_bytes(whole.replace(b"\1" * 600, b"\1" * 599 + b"\2"))
    found, problems = read_shard(shard)
    assert problems
    assert digests[1] not in found
    write_shard(shard, wrong_digest=True)
    assert read_shard(shard)[1]
    write_shard(shard, records=False)
    assert read_shard(shard)[1]


def test_a_damaged_database_is_found_and_a_whole_one_with_a_log_is_not(tmp_path: Path) -> None:
    path = tmp_path / "manyview.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE image (pk INTEGER PRIMARY KEY, key TEXT)")
        connection.execute("CREATE INDEX image_by_key ON image (key)")
        connection.executemany("INSERT INTO image (key) VALUES (?)", [(f"{number:0100}",) for number in range(2000)])
        assert database_damage(tmp_path) == [], "the copy brings its log"
    assert database_damage(tmp_path) == []
    content = bytearray(path.read_bytes())
    content[20_000:24_000] = bytes(4000)
    path.write_bytes(content)
    assert database_damage(tmp_path)


def test_a_history_outlives_its_writer_and_passes_over_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "history"
    assert read(path) == []
    History(path).log("acked", dataset="d", key="a.jpg", sha256=sha256(1))
    with path.open("ab") as file:
        file.write(b'{"op": "acked", "data')
    assert len(read(path)) == 1
    History(path).log("finished", dataset="d", num_sent=1, num_stored=1)
    assert [record["op"] for record in read(path)] == ["acked", "finished"]
    assert [record["op"] for record in read(path, "finished")] == ["finished"]
