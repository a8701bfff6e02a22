"""No command is silent: on a terminal it says what it waits for, and its line moves while it waits.

No time is measured. The fake server answers each call only once the terminal has shown what the command waits for, and
that this has taken a second. A command that stays silent never gets its answer.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from manyview._cli.main import app
from manyview._uploads import folders
from manyview.testing import FakeServer
from manyview.v1 import embed_service_pb2 as pb
from manyview.v1 import train_job_service_pb2, types_pb2
from support.clients.terminal import Terminal

Stage = pb.EmbeddingsProgress
Run = Callable[..., int]
MODEL = "backbones/resnet18"


@pytest.fixture
def run(server: FakeServer, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command of the program on the terminal, and return its exit status."""
    monkeypatch.setenv("MANYVIEW_TARGET", server.target)

    def run(*arguments: object) -> int:
        monkeypatch.setattr(sys, "stdout", terminal.stream)
        monkeypatch.setattr(sys, "stderr", terminal.stream)
        return int(app([str(argument) for argument in arguments], standalone_mode=False) or 0)

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("cat/a.jpg", "dog/b.jpg"):
        (tmp_path / "in" / name).parent.mkdir(parents=True)
        (tmp_path / "in" / name).write_bytes(name.encode())
    return tmp_path / "in"


@pytest.fixture
def slowly(server: FakeServer, terminal: Terminal) -> Callable[..., None]:
    """slowly(RPC, TEXTS): answer the next call only once these texts were shown."""

    def slowly(rpc: str, *texts: str) -> None:
        answer = server._answer(rpc)

        def wait(request: Any, context: Any) -> Any:
            terminal.wait_for(*texts)
            return answer(request, context)

        server.reply(rpc, wait)

    return slowly


@pytest.fixture
def pets(server: FakeServer, folder: Path) -> Path:
    """A data set that the server holds."""
    import manyview

    with manyview.Client(server.target) as client:
        client.upload(folder, "pets")
    return folder


@pytest.mark.parametrize(
    "command",
    [["info"], ["images", "pets"], ["train", "pets"]],
    ids=lambda command: command[0],
)
@pytest.mark.usefixtures("pets")
def test_a_command_says_that_it_waits_for_the_server(
    run: Run, server: FakeServer, slowly: Callable[..., None], command: list[str]
) -> None:
    slowly("GetServerInfo", f"manyview: waiting for {server.target}, 1 s")
    assert run(*command) == 0


def test_a_command_can_say_something_before_anything_slow_is_imported() -> None:
    code = "import sys, manyview._cli.main; print({'grpc', 'google', 'numpy', 'PIL', 'asyncio'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_an_upload_says_how_far_it_is(
    run: Run, folder: Path, terminal: Terminal, slowly: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def list_paths(*arguments: Any) -> Any:
        terminal.wait_for("upload to pets: listing files, 1 s")
        return listed(*arguments)

    listed = folders.list_paths
    monkeypatch.setattr("manyview._uploads.sources.list_paths", list_paths)
    slowly("UploadImages", "upload to pets: sending 0 of 2 ────────────────────")
    assert run("upload", folder, "-d", "pets") == 0
    terminal.wait_for("upload to pets: 2 images in ")


def test_embedding_files_says_that_it_waits_for_the_model(
    run: Run, folder: Path, tmp_path: Path, terminal: Terminal, slowly: Callable[..., None]
) -> None:
    slowly("Embed", "embed: waiting for the model, for which the first call starts a worker, 1 s")
    assert run("embed", folder, "-m", MODEL, "-o", tmp_path / "rows.npy") == 0
    terminal.wait_for("embed: 2 images in ")


def test_previews_say_that_they_are_made(run: Run, pets: Path, slowly: Callable[..., None]) -> None:
    slowly("PreviewViews", "preview: making views, for which the first call starts a worker, 1 s")
    assert run("preview", "cat/a.jpg", "-d", "pets") == 0


@pytest.mark.parametrize(("options", "says"), [([], "creating the job"), (["--print-config"], "planning the job")])
@pytest.mark.usefixtures("pets")
def test_creating_a_job_may_take_its_time(run: Run, slowly: Callable[..., None], options: list[str], says: str) -> None:
    slowly("CreateTrainJob", f"train: {says}, 1 s")
    assert run("train", "pets", *options) == 0


def stages(terminal: Terminal, title: str, response: type[Any], rest: Callable[..., Any]) -> Callable[..., Any]:
    """A call that goes through the stages of a server whose worker has to start, each until it was shown."""
    reports = (
        (Stage(stage=Stage.STAGE_STARTING_WORKER), "starting a worker, 1 s"),
        (Stage(stage=Stage.STAGE_EMBEDDING, done=640, total=3068), "embedding 640 of 3,068 ━━━━────────────────"),
        (Stage(stage=Stage.STAGE_EMBEDDING_QUERIES, total=7), "embedding 7 queries"),
        (Stage(stage=Stage.STAGE_QUEUED), "waiting for other calls"),
        (Stage(stage=Stage.STAGE_COMPUTING), "computing, 1 s"),
    )

    def call(request: Any, context: Any) -> Iterator[Any]:
        terminal.wait_for(f"{title}: finding the model, 1 s")
        for progress, text in reports:
            yield response(progress=progress)
            terminal.wait_for(f"{title}: {text}")
        yield from rest(request, context)

    return call


@pytest.mark.parametrize(
    ("rpc", "response", "title", "command"),
    [
        ("SelectSamples", pb.SelectSamplesResponse, "select from pets", ["select", "pets", "-n", "1", "-m", MODEL]),
        ("FindNeighbors", pb.FindNeighborsResponse, "neighbors in pets", ["neighbors", "pets", "--key", "cat/a.jpg"]),
        ("FindDuplicates", pb.FindDuplicatesResponse, "duplicates in pets", ["duplicates", "pets", "-d", "0.1"]),
    ],
)
@pytest.mark.usefixtures("pets")
def test_a_question_about_a_data_set_says_each_stage_of_its_answer(
    run: Run, server: FakeServer, terminal: Terminal, rpc: str, response: type[Any], title: str, command: list[str]
) -> None:
    server.reply(rpc, stages(terminal, title, response, server._answer(rpc)))
    model = [] if command[0] == "select" else ["-m", MODEL]
    assert run(*command, *model) == 0


@pytest.mark.usefixtures("pets")
def test_embedding_a_data_set_says_how_far_it_is(
    run: Run, server: FakeServer, terminal: Terminal, tmp_path: Path
) -> None:
    rest = server._answer("EmbedDataset")

    def call(request: Any, context: Any) -> Iterator[Any]:
        terminal.wait_for("embed pets: finding the model, 1 s")
        opened, *pages = rest(request, context)
        yield opened
        for progress, text in (
            (Stage(stage=Stage.STAGE_STARTING_WORKER), "starting a worker, 1 s"),
            (Stage(stage=Stage.STAGE_EMBEDDING, done=1, total=2), "embedding 1 of 2 ━━━━━━━━━━──────────"),
        ):
            yield pb.EmbedDatasetResponse(progress=progress)
            terminal.wait_for(f"embed pets: {text}")
        yield from pages

    server.reply("EmbedDataset", call)
    assert run("embed", "-d", "pets", "-m", MODEL, "-o", tmp_path / "rows.npy") == 0
    terminal.wait_for("embed pets: 2 in ")


@pytest.mark.usefixtures("pets")
def test_the_log_of_a_job_that_says_nothing_yet_is_no_silence(run: Run, server: FakeServer, terminal: Terminal) -> None:
    run("train", "pets", "--job-id", "mine")

    def end() -> None:
        terminal.wait_for("mine: reading the log, 1 s")
        server.finish_job("trainJobs/mine")

    ending = threading.Thread(target=end)
    ending.start()
    assert run("logs", "mine", "--follow") == 0
    ending.join()


@pytest.mark.usefixtures("pets")
def test_watching_says_what_a_job_waits_for_without_any_event(run: Run, server: FakeServer, terminal: Terminal) -> None:
    run("train", "pets", "--job-id", "mine")
    job = server.state.jobs["trainJobs/mine"]
    activity = train_job_service_pb2.Activity

    def live() -> None:
        job.queue_position = 2
        job.progress.activity.kind = activity.KIND_WAITING_FOR_DEVICE
        terminal.wait_for("QUEUED", "waiting in the queue behind 2")
        job.state = types_pb2.TRAIN_JOB_STATE_STARTING
        job.progress.activity.kind = activity.KIND_DECODING
        for done in (1200, 2400):
            job.progress.activity.done, job.progress.activity.total = done, 3068
            terminal.wait_for("STARTING", f"decoding {done:,} of 3,068 images ━━━")
        server.finish_job("trainJobs/mine")

    living = threading.Thread(target=live)
    living.start()
    assert run("watch", "mine") == 0
    living.join()
