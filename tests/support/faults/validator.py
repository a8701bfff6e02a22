"""Judges a scenario: what its clients saw (histories) against what the server holds afterwards (evidence).

V1  every acknowledged image is listed and stands in a shard with the bytes that were sent
V2  no image is held twice
V3  a job's events are 1, 2, 3, … for every subscriber, with the same content for all; each step counts once
V4  a job's states follow each other as its state graph allows
V5  nothing is left running
V6  database and shards are whole

The checks are pure: their own tests hand them histories with something wrong.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from support.faults.evidence import DatasetEvidence, Evidence, JobEvidence
from support.faults.history import Record

STATE_GRAPH: Mapping[str, frozenset[str]] = {
    "": frozenset({"QUEUED"}),
    "QUEUED": frozenset({"STARTING", "PAUSED", "CANCELLED", "FAILED"}),
    "STARTING": frozenset({"RUNNING", "RECOVERING", "PAUSING", "CANCELLING", "FAILED"}),
    "RUNNING": frozenset({"RECOVERING", "PAUSING", "CANCELLING", "SUCCEEDED", "FAILED"}),
    "RECOVERING": frozenset({"STARTING", "PAUSING", "CANCELLING", "FAILED"}),
    "PAUSING": frozenset({"PAUSED", "CANCELLING", "SUCCEEDED", "FAILED"}),
    "PAUSED": frozenset({"QUEUED", "CANCELLED"}),
    "CANCELLING": frozenset({"CANCELLED", "SUCCEEDED", "FAILED"}),
    "CANCELLED": frozenset(),
    "SUCCEEDED": frozenset(),
    "FAILED": frozenset(),
}
"""The graph of states from the contract (proto, TrainJobState), not from the server's code."""

CONTENT = ("attempt", "step", "epoch", "kind", "time", "payload")


@dataclass(kw_only=True)
class Verdict:
    """Counts of everything that was checked, and every violation in words."""

    acknowledged: int = 0
    lost: int = 0
    duplicated: int = 0
    events: int = 0
    gaps: int = 0
    repeated: int = 0
    orphans: int = 0
    violations: list[str] = field(default_factory=list)

    def assert_clean(self) -> None:
        """Fail with the violations."""
        shown = self.violations[:20]
        more = len(self.violations) - len(shown)
        assert not shown, "\n".join([*shown, f"and {more} more"] if more else shown)

    def figures(self) -> dict[str, int]:
        """The numbers, for totals over many rounds."""
        return {name: value for name, value in vars(self).items() if isinstance(value, int)}


def validate(histories: Mapping[str, Sequence[Record]], evidence: Evidence) -> Verdict:
    """Check everything. `histories`: the operations of each client, by the client's name."""
    verdict = Verdict()
    for name, dataset in evidence.datasets.items():
        acked = [r for records in histories.values() for r in records if r["op"] == "acked" and r["dataset"] == name]
        check_images(verdict, name, acked, dataset)
    unknown = {r["dataset"] for records in histories.values() for r in records if r["op"] == "acked"}
    for name in unknown - evidence.datasets.keys():
        verdict.violations.append(f"V1 the data set {name} is gone")
    for name, job in evidence.jobs.items():
        check_log(verdict, name, job)
        check_states(verdict, name, job)
        for client, records in histories.items():
            check_subscriber(verdict, client, name, [r for r in records if r.get("job") == name], job)
    verdict.orphans += len(evidence.left_over)
    verdict.violations += [f"V5 {words}" for words in evidence.left_over]
    verdict.violations += [f"V6 {words}" for words in evidence.damage]
    return verdict


def check_images(verdict: Verdict, name: str, acked: Iterable[Record], dataset: DatasetEvidence) -> None:
    """V1, V2 and V6 of one data set. A second acknowledgement of the same bytes counts once."""
    listed = Counter(image.image_id for image in dataset.listed)
    in_shards = Counter(dataset.in_shards)
    wanted = {record["sha256"]: record["key"] for record in acked}
    verdict.acknowledged += len(wanted)
    for sha256, key in wanted.items():
        missing = [
            where
            for where, found in (("listed", image_id_of(sha256) in listed), ("in a shard", sha256 in in_shards))
            if not found
        ]
        verdict.lost += bool(missing)
        if missing:
            verdict.violations.append(f"V1 {name}/{key} was acknowledged and is not {' nor '.join(missing)}")
    for what, counts in (("listed", listed), ("in the shards", in_shards)):
        repeated = {image: count for image, count in counts.items() if count > 1}
        verdict.duplicated += len(repeated)
        verdict.violations += [f"V2 {name}: {image} is {what} {count} times" for image, count in repeated.items()]
    if dataset.num_images != len(dataset.listed):
        verdict.violations.append(f"V2 {name} says {dataset.num_images} images and lists {len(dataset.listed)}")
    if {image_id_of(sha256) for sha256 in in_shards} != listed.keys():
        verdict.violations.append(f"V6 {name}: the shards hold other images than are listed")
    verdict.violations += [f"V6 {words}" for words in dataset.damage]


def check_log(verdict: Verdict, name: str, job: JobEvidence) -> None:
    """V3: the log as it is held is 1, 2, 3, … and every step counts once."""
    sequences = [event["sequence"] for event in job.events]
    if sequences != list(range(job.after + 1, job.last_sequence + 1)):
        wanted = f"{job.after + 1}-{job.last_sequence}"
        verdict.violations.append(f"V3 {name}: events {wanted} are replayed as {_spans(sequences)}")
    rollbacks = [
        (json.loads(event["payload"])["superseded_after_sequence"], event["sequence"])
        for event in job.events
        if event["kind"] == "rollback"
    ]
    counting = [
        event["step"]
        for event in job.events
        if event["kind"] == "scalars"
        and "loss" in json.loads(event["payload"])
        and not any(first < event["sequence"] < last for first, last in rollbacks)
    ]
    twice = [after for before, after in pairwise(counting) if after <= before]
    verdict.violations += [f"V3 {name}: step {step} counts again" for step in twice]


def check_states(verdict: Verdict, name: str, job: JobEvidence) -> None:
    """V4: each change begins where the last one ended, along the graph, and the job stands where they end."""
    state = job.state_before
    for event in job.events:
        if event["kind"] != "state":
            continue
        change = json.loads(event["payload"])
        if _name(change["from"]) != state:
            verdict.violations.append(
                f"V4 {name}: event {event['sequence']} leaves {change['from']}, the job was {state}"
            )
        if _name(change["to"]) not in STATE_GRAPH.get(state, frozenset()):
            verdict.violations.append(f"V4 {name}: event {event['sequence']} goes from {state} to {change['to']}")
        state = _name(change["to"])
    if state != job.state:
        verdict.violations.append(f"V4 {name} is {job.state}, its events end in {state}")
    attempts = [event["attempt"] for event in job.events if event["attempt"]]
    if attempts != sorted(attempts):
        verdict.violations.append(f"V4 {name}: attempts do not only rise: {list(dict.fromkeys(attempts))}")


def check_subscriber(verdict: Verdict, client: str, name: str, records: Sequence[Record], job: JobEvidence) -> None:
    """V3 for one subscriber: nothing missed, nothing twice, nothing that the log does not say."""
    seen = [record for record in records if record["op"] == "event" and record["sequence"] > job.after]
    held = {event["sequence"]: event for event in job.events}
    verdict.events += len(seen)
    expected = job.after + 1
    for record in seen:
        sequence = record["sequence"]
        verdict.gaps += max(0, sequence - expected)
        verdict.repeated += sequence < expected
        if sequence != expected:
            verdict.violations.append(f"V3 {client} saw event {sequence} of {name} where {expected} was due")
        expected = max(expected, sequence + 1)
        if sequence not in held:
            verdict.violations.append(f"V3 {client} saw event {sequence} of {name}, which the log does not hold")
        elif any(record[part] != held[sequence][part] for part in CONTENT):
            verdict.violations.append(f"V3 {client} saw another event {sequence} of {name} than the log holds")
    if any(record["op"] == "ended" for record in records) and expected != job.last_sequence + 1:
        verdict.gaps += max(0, job.last_sequence + 1 - expected)
        verdict.violations.append(
            f"V3 {client} was told that {name} ended after event {expected - 1} of {job.last_sequence}"
        )


def image_id_of(sha256: str) -> str:
    """The image id of the contract: the first 63 bits of the digest, as 16 hexadecimal digits."""
    return f"{int(sha256[:16], 16) >> 1:016x}"


def _name(state: str) -> str:
    return "" if state == "UNSPECIFIED" else state


def _spans(sequences: Sequence[int]) -> str:
    """Numbers in their order as spans: "1-5, 7-9"."""
    spans: list[list[int]] = []
    for number in sequences:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(f"{first}-{last}" for first, last in spans[:10]) or "nothing"
