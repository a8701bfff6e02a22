"""Images that take a decoder too long, in real workers: they cost themselves, and nobody else."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import manyview
from support.service.harness import ServerProcess, jpeg, wait_until

pytestmark = pytest.mark.timeout(120)

MODEL = "backbones/resnet9"
SLOW_ROW = 3
LIMIT_S = 1.0
BURN = "burn 100 always"


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("places")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, catalogue: Path, places: Path) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("slow-decodes")
    started = ServerProcess(folder / "data", "--decode-cpu-s", f"{LIMIT_S}", catalogue=catalogue)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MANYVIEW_FAILPOINTS", str(places))
        started.start()
    yield started
    started.stop()
    wait_until(lambda: not started.processes(), "every process of the server is gone", 10)


def images(seed: int) -> list[bytes]:
    """Images of which the one in `SLOW_ROW` never ends to decode, while the failpoint is there."""
    return [jpeg(seed=1000 * seed + row) for row in range(SLOW_ROW + 2)]


def errors(server: ServerProcess) -> list[dict[str, str]]:
    lines = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["level"] == "error"]


def test_callers_that_give_up_leave_nobody_waiting_and_their_images_are_known_by_name(
    server: ServerProcess, places: Path
) -> None:
    """The decoder holds the interpreter's lock, so nothing within the process can notice."""
    with server.client() as client:
        client.embed(images(0)[:1], MODEL)
        (first,) = server.workers("embedder")
        (places / f"embedder.decode@{SLOW_ROW}").write_text(BURN)

        def give_up(seed: int) -> None:
            with (
                manyview.Client(server.address, deadlines=manyview.Deadlines(embed_s=0.5)) as impatient,
                pytest.raises(manyview.ManyviewError),
            ):
                impatient.embed(images(seed), MODEL)

        callers = [threading.Thread(target=give_up, args=(seed,)) for seed in (1, 2)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert not client.embed(images(0)[:1], MODEL).errors, "others are served, without an error in between"
        wait_until(lambda: server.workers("embedder") not in ([first], []), "another embedder", 30)
        known = [
            error for error in errors(server) if error["message"] == "an image takes the embedder too long to decode"
        ]
        assert known
        assert {len(error["image"]) for error in known} == {16}
        assert not any("died" in error["message"] for error in errors(server))
        for seed in (1, 2):
            rows = client.embed(images(seed), MODEL)
            assert {row: error.reason for row, error in rows.errors.items()} == {SLOW_ROW: "DECODE_TOO_SLOW"}
        (embedder,) = server.workers("embedder")
        for seed in (1, 2):
            assert SLOW_ROW in client.embed(images(seed), MODEL).errors
        assert server.workers("embedder") == [embedder], "what is known costs no process"


def test_a_preview_shows_the_other_images_and_no_job_decodes_the_slow_one(server: ServerProcess, places: Path) -> None:
    (places / "previewer.decode@1").write_text(BURN)
    with server.client() as client:
        client.upload([jpeg(seed=row) for row in range(3)], dataset="photos")
        stored = list(client.images("photos"))
        found = client.preview(stored, "simclr", config={"image_size": 16}, dataset="photos")
        assert {row: error.reason for row, error in found.errors.items()} == {1: "DECODE_TOO_SLOW"}
        assert [len(views) for views in found.views] == [2, 0, 2]
        (noted,) = client.images("photos", ["UNREADABLE"])
        assert noted.error is not None
        assert (noted.image_id, noted.error.reason) == (stored[1].image_id, "DECODE_TOO_SLOW")
