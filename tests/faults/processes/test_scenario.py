"""Everything at once, and faults drawn from a seed: three uploaders, two subscribers, two callers for embeddings
and one or two jobs, while processes of clients, server and workers are killed or stopped for a while.

Afterwards one validator compares what each client saw with what the server holds.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from support.clients.actors import BATCH_IMAGES, Actor
from support.faults.evidence import Evidence, database_damage, dataset_evidence, job_evidence, num_open_files, zombies
from support.faults.injector import Injector, draw
from support.faults.validator import validate
from support.service.harness import SMALL_JOB, ServerProcess, wait_until, write_photos
from support.soak.rounds import rounds, soaking

pytestmark = pytest.mark.timeout(300)

NUM_FAULTS = 6
SEEDS = rounds(1) if soaking() else [9]
"""Outside of soak, one with six kinds of faults within few seconds, and a job that follows the shared data set."""
NUM_IMAGES = 160
PAUSE_S = "0.3"
"""The pause of an uploader after each batch of 8, so that the upload lasts as long as the faults."""
JOB = SMALL_JOB | {"log_every_steps": 4, "checkpoint_every_epochs": 6}
WORKERS = (
    None
    if soaking()
    else {"trainer": {"steps": 240, "step_s": 0.03, "checkpoint_every": 24, "log_every": JOB["log_every_steps"]}}
)
"""Outside of soak, workers without torch: what they compute plays no part here."""
FOLLOWED_FROM = 64
"""Images of the shared data set with which the job begins that follows it."""
PATIENCE_S = 120.0
SPARE_FILES = 16
"""Descriptors that a server may hold more than it did before its first call: the embedder's link, open shards."""


def cast(server: ServerProcess, folder: Path, jobs: list[str]) -> list[Actor]:
    """The clients. The second uploader sends half of the first one's images again, into the same data set."""
    for number, name in enumerate(("first", "second", "third")):
        write_photos(folder / name, NUM_IMAGES, seed=number)
    for path in sorted((folder / "first").rglob("*.jpg"))[: NUM_IMAGES // 2]:
        shutil.copyfile(path, folder / "second" / path.parent.name / f"copy-{path.name}")
    place = (server.address, folder)
    return [
        Actor("uploader", "uploader-0", *place, "shared", str(folder / "first"), PAUSE_S),
        Actor("uploader", "uploader-1", *place, "shared", str(folder / "second"), PAUSE_S),
        Actor("uploader", "uploader-2", *place, "own", str(folder / "third"), PAUSE_S),
        Actor("subscriber", "subscriber-0", *place, jobs[0]),
        Actor("subscriber", "subscriber-1", *place, jobs[-1]),
        Actor("caller", "caller-0", *place, jobs[0], str(folder / "training")),
        Actor("caller", "caller-1", *place, jobs[0], str(folder / "training")),
    ]


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_acknowledged_is_lost_and_nothing_is_seen_twice_whatever_fails(
    new_server: Callable[..., ServerProcess],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
    seed: int,
) -> None:
    plan = draw(seed, NUM_FAULTS)
    print(f"seed {seed}:", *plan, sep="\n  ")
    server = new_server("--max-batch-images", "8", workers=WORKERS)
    server.start()
    open_files = num_open_files(server)
    write_photos(tmp_path / "training", 64, seed=99)
    with server.client() as client:
        dataset = client.upload(tmp_path / "training", dataset="training")
        jobs = [client.train(dataset, "simclr", epochs=60, config=JOB)]
        if seed % 2:
            client.create_dataset("shared")
            jobs.append(client.train("shared", "moco", config=JOB | {"max_steps": 240}, follow=FOLLOWED_FROM))
        actors = cast(server, tmp_path, [job.id for job in jobs])
        injector = Injector(server, actors, seed)
        try:
            for actor in actors:
                actor.start()
            injector.run(plan)
            print("happened:", dict(injector.happened))
            end_quietly(actors)
            wait_until(lambda: not zombies(server), "the server has reaped its children", 10)
            wait_until(
                lambda: num_open_files(server) <= open_files + SPARE_FILES, "the server's descriptors are back", 20
            )
            datasets = {name: dataset_evidence(client, server.data_dir, name) for name in ("training", "shared", "own")}
            evidence = {job.id: job_evidence(client, job.id) for job in jobs}
        finally:
            for actor in actors:
                actor.close()
    assert server.stop() == 0
    damage = database_damage(server.data_dir)
    left_over = [f"process {pid} runs" for pid in server.processes()]
    histories = {actor.name: actor.history() for actor in actors}
    verdict = validate(histories, Evidence(datasets=datasets, jobs=evidence, left_over=left_over, damage=damage))
    verdict.assert_clean()
    assert {job.state for job in evidence.values()} == {"SUCCEEDED"}
    assert datasets["shared"].num_images == 2 * NUM_IMAGES
    assert datasets["own"].num_images == NUM_IMAGES
    if seed % 2:
        snapshots = [event for event in evidence[jobs[-1].id].events if event["kind"] == "snapshot"]
        sizes = [json.loads(event["payload"])["num_images"] for event in snapshots]
        assert FOLLOWED_FROM <= sizes[0] <= max(sizes) <= 2 * NUM_IMAGES
    answers = [answer for actor in actors for answer in actor.history("embedded")]
    assert all(answer["rows"] == BATCH_IMAGES and answer["refused"] == 0 for answer in answers)
    for name, value in verdict.figures().items():
        record_property(name, value)
    for kind, count in injector.happened.items():
        record_property(f"fault_{kind}", count)
    record_property("batches_embedded", len(answers))


def end_quietly(actors: list[Actor]) -> None:
    """No more faults: everyone does what is left to do."""
    for actor in actors:
        if actor.role != "caller":
            actor.finish(PATIENCE_S)
    for caller in (actor for actor in actors if actor.role == "caller"):
        wait_until(partial(caller.history, "embedded"), f"{caller.name} got embeddings", PATIENCE_S)
        caller.finish(PATIENCE_S)
