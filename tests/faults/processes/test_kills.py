"""SIGKILL of clients, of the server and of the trainer at random moments, while images come in and a job trains.

Promises: an acknowledged image is never lost nor stored twice; a subscriber sees every event once, over all restarts;
the server serves again; the job goes on; nothing keeps running. What was acknowledged and seen is known from the
clients' side alone. All rounds of a run are spent on one data directory and one job, which lives through all kills.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from support.clients.actors import Actor
from support.faults.evidence import Evidence, database_damage, dataset_evidence, job_evidence, num_open_files, zombies
from support.faults.history import Record
from support.faults.validator import Verdict, validate
from support.service.harness import SMALL_JOB, ServerProcess, wait_until, write_photos
from support.soak.rounds import rounds, soaking

pytestmark = pytest.mark.timeout(240)

SETTINGS = ("--max-batch-images", "8")
"""Small batches: an upload of a few hundred images has many moments to be killed at."""
NUM_IMAGES = 200
JOB: dict[str, Any] = SMALL_JOB | {
    "epochs": 100_000,
    "log_every_steps": 4,
    "checkpoint_every_epochs": 16,
    "evaluation": {"knn_every_epochs": 0},
}
"""A job that does not end by itself, with a checkpoint about every second."""
WORKERS = (
    None if soaking() else {"trainer": {"steps": 1_000_000, "step_s": 0.02, "checkpoint_every": 40, "log_every": 4}}
)
"""Outside of soak, workers without torch: what they compute plays no part here."""
PATIENCE_S = 60.0

Report = Callable[[str, object], None]


class Stage:
    """A server on which one job trains, and a subscriber who watches it from the first event on."""

    def __init__(self, server: ServerProcess, folder: Path) -> None:
        self.server = server
        self.folder = folder
        server.start()
        self.client = server.client()
        write_photos(folder / "training", 96, seed=1)
        self.client.upload(folder / "training", dataset="training")
        self.job = self.client.train("training", "moco", config=JOB, job_id="marathon")
        self.subscriber = Actor("subscriber", "subscriber", server.address, folder, self.job.id).start()
        self._after, self._state = 0, ""
        self.wait_for_checkpoint(0)

    def seen(self) -> list[Record]:
        """The subscriber's events."""
        return self.subscriber.history("event")

    def attempt(self) -> int:
        return self.job.refresh().attempt

    def has_attempt(self, attempt: int) -> bool:
        return self.attempt() >= attempt

    def wait_for_checkpoint(self, attempt: int) -> None:
        """Until the subscriber sees a checkpoint of a later attempt than this: training goes on, and its progress is
        safe."""
        wait_until(
            lambda: any(event["kind"] == "checkpoint" and event["attempt"] > attempt for event in self.seen()),
            f"a checkpoint of a later attempt than {attempt}",
            PATIENCE_S,
        )

    def uploader(self, name: str, seed: int, num_images: int = NUM_IMAGES) -> Actor:
        """A client that uploads new images into a data set of this name."""
        write_photos(self.folder / name, num_images, seed=seed + 1000)
        return Actor("uploader", name, self.server.address, self.folder, name, str(self.folder / name))

    def judge(self, uploaders: Sequence[Actor], report: Report, damage: Sequence[str] = ()) -> Verdict:
        """Everything that this round touched: its uploads, and the job's events since the last round."""
        last = self.job.refresh().last_sequence
        wait_until(lambda: self.seen()[-1]["sequence"] >= last, f"the subscriber sees event {last}", PATIENCE_S)
        histories = {actor.name: actor.history() for actor in (*uploaders, self.subscriber)}
        job = job_evidence(self.client, self.job.id, self._after, self._state)
        evidence = Evidence(
            datasets={a.name: dataset_evidence(self.client, self.server.data_dir, a.name) for a in uploaders},
            jobs={self.job.id: job},
            damage=damage,
        )
        verdict = validate(histories, evidence)
        verdict.assert_clean()
        assert all(dataset.num_images == NUM_IMAGES for dataset in evidence.datasets.values())
        assert job.state == "RUNNING"
        assert len(self.server.workers("trainer")) == 1
        self._after, self._state = job.last_sequence, job.state
        for name, value in verdict.figures().items():
            report(name, value)
        return verdict

    def close(self) -> None:
        """Cancel the job, stop everything, and judge the job's whole life."""
        self.job.cancel()
        self.subscriber.finish(PATIENCE_S)
        wait_until(lambda: not self.server.workers("trainer"), "the trainer is gone", PATIENCE_S)
        wait_until(lambda: not zombies(self.server), "the server has reaped its children", 10)
        histories = {"subscriber": self.subscriber.history()}
        jobs = {self.job.id: job_evidence(self.client, self.job.id)}
        # The first step and the last one are logged, too.
        steps = [
            int(row["step"]) for row in self.job.history(["loss"]).rows if row["step"] % JOB["log_every_steps"] == 0
        ]
        assert steps == list(range(steps[0], steps[-1] + 1, JOB["log_every_steps"])), "each step counts once"
        self.client.close()
        assert self.server.stop() == 0
        wait_until(lambda: not self.server.processes(), "every process of the server is gone", 10)
        validate(histories, Evidence(jobs=jobs, damage=database_damage(self.server.data_dir))).assert_clean()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, catalogue: Path) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("kills")
    server = ServerProcess(folder / "data", *SETTINGS, catalogue=catalogue, workers=WORKERS)
    try:
        stage = Stage(server, folder)
        yield stage
        stage.close()
    finally:
        server.stop()


def acknowledged(actor: Actor) -> int:
    return len({record["key"] for record in actor.history("acked")})


@pytest.mark.parametrize("seed", rounds(1))
def test_killed_clients_go_on_where_they_were_and_nobody_else_notices(
    stage: Stage, record_property: Report, seed: int
) -> None:
    random_ = random.Random(seed)
    attempt = stage.attempt()
    uploader = stage.uploader(f"client-{seed}", seed).start()
    threshold = random_.randrange(1, NUM_IMAGES * 3 // 4)
    wait_until(lambda: acknowledged(uploader) >= threshold, f"{threshold} images acknowledged")
    killed = uploader.kill() + stage.subscriber.kill()
    num_acknowledged = acknowledged(uploader)
    assert killed == 2
    assert stage.client.dataset(uploader.name).num_images >= num_acknowledged
    stage.subscriber.start()
    uploader.start().finish(PATIENCE_S)
    stage.judge([uploader], record_property)
    assert stage.attempt() == attempt
    record_property("kills_of_clients", killed)
    record_property("acknowledged_before_kill", num_acknowledged)


@pytest.mark.parametrize("seed", rounds(1))
def test_a_killed_server_comes_back_with_all_that_was_acknowledged_and_everyone_goes_on(
    stage: Stage, record_property: Report, seed: int
) -> None:
    random_ = random.Random(seed)
    attempt = stage.attempt()
    uploaders = [stage.uploader(f"server-{seed}-{number}", 10 * seed + number + 5000).start() for number in range(2)]
    threshold = random_.randrange(1, 2 * NUM_IMAGES * 3 // 4)
    wait_until(lambda: sum(map(acknowledged, uploaders)) >= threshold, f"{threshold} images acknowledged")
    time.sleep(random_.uniform(0, 0.02))
    stage.server.kill()
    num_acknowledged = sum(map(acknowledged, uploaders))
    wait_until(lambda: not stage.server.processes(), "the workers die with the server", 5)
    damage = database_damage(stage.server.data_dir)
    recovery_s = stage.server.start()
    assert stage.client.health() == "SERVING"
    for uploader in uploaders:
        uploader.finish(PATIENCE_S)
    stage.wait_for_checkpoint(attempt)
    stage.judge(uploaders, record_property, damage)
    assert stage.attempt() == attempt + 1
    record_property("kills_of_server", 1)
    record_property("acknowledged_before_kill", num_acknowledged)
    record_property("max_recovery_ms", round(1000 * recovery_s))


@pytest.mark.parametrize("seed", rounds(1))
def test_a_killed_trainer_is_started_again_and_the_upload_beside_it_does_not_notice(
    stage: Stage, record_property: Report, seed: int
) -> None:
    random_ = random.Random(seed)
    attempt, open_files = stage.attempt(), num_open_files(stage.server)
    uploader = stage.uploader(f"trainer-{seed}", seed + 9000).start()
    threshold = random_.randrange(1, NUM_IMAGES * 3 // 4)
    wait_until(lambda: acknowledged(uploader) >= threshold, f"{threshold} images acknowledged")
    kills = 0
    # Every third round kills the next trainer too, at whatever it is doing then: starting, mostly.
    for _ in range(1 + (seed % 3 == 2)):
        wait_until(lambda: bool(stage.server.workers("trainer")), "there is a trainer", PATIENCE_S)
        time.sleep(random_.uniform(0, 1.0) if kills else random_.uniform(0, 0.2))
        for pid in stage.server.workers("trainer"):
            os.kill(pid, signal.SIGKILL)
            kills += 1
        wait_until(partial(stage.has_attempt, attempt + kills), "the next attempt begins", PATIENCE_S)
    uploader.finish(PATIENCE_S)
    stage.wait_for_checkpoint(attempt + kills - 1)
    stage.judge([uploader], record_property)
    assert stage.attempt() == attempt + kills
    wait_until(lambda: not zombies(stage.server), "the server has reaped its children", 10)
    wait_until(lambda: num_open_files(stage.server) <= open_files + 8, "the server's descriptors are back", 10)
    record_property("kills_of_trainer", kills)
