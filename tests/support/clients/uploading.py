"""An upload in a thread of the test, and a check of everything that was acknowledged to it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import manyview
from manyview.v1 import dataset_service_pb2, dataset_service_pb2_grpc
from support.clients import actors
from support.clients.wire import Wire
from support.faults.evidence import Evidence, dataset_evidence
from support.faults.history import History, read
from support.faults.validator import validate
from support.service.harness import ServerProcess

PATIENCE_S = 60.0


class Uploading:
    """A client that uploads a folder, from its start on, and writes down what is acknowledged.

    Another one with the same folder goes on with the upload and with its history.
    """

    def __init__(
        self, server: ServerProcess, folder: Path, dataset: str, deadlines: manyview.Deadlines | None = None
    ) -> None:
        self.dataset = dataset
        self._client = manyview.Client(server.address, deadlines=deadlines)
        self._history = folder.with_suffix(".jsonl")
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(folder,))
        self._thread.start()

    def _run(self, folder: Path) -> None:
        try:
            with self._client:
                actors.upload(self._client, History(self._history), self.dataset, str(folder))
        except BaseException as error:
            self._failure = error

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    @property
    def num_acknowledged(self) -> int:
        return len(read(self._history, "acked")) if self._history.exists() else 0

    def end(self) -> BaseException | None:
        """Wait until it is done; gives what it failed with, None where all is uploaded."""
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), f"the upload was not done within {PATIENCE_S:g} s"
        return self._failure

    def finish(self) -> None:
        """Wait until all is uploaded."""
        if (failure := self.end()) is not None:
            raise failure

    def judge(self, server: ServerProcess, report: Callable[[str, object], None], damage: Sequence[str] = ()) -> None:
        """All images are there, once, with their bytes, and nothing else. `damage` holds faults found until now.

        Where the upload failed, all that was acknowledged, and perhaps some more.
        """
        with server.client() as client:
            dataset = dataset_evidence(client, server.data_dir, self.dataset)
        records = read(self._history)
        verdict = validate({"uploader": records}, Evidence(datasets={self.dataset: dataset}, damage=damage))
        verdict.assert_clean()
        if self._failure is None:
            assert dataset.num_images == len({record["key"] for record in records if record["op"] == "acked"})
            assert any(record["op"] == "finished" for record in records)
        for figure, value in verdict.figures().items():
            report(figure, value)


def new_dataset(server: ServerProcess, name: str) -> list[Path]:
    """An empty data set; gives what will be written when images come to it: directory, shard, the database's files."""
    wire = Wire(server.address)
    request = dataset_service_pb2.CreateDatasetRequest(dataset_id=name)
    uid = wire.call(dataset_service_pb2_grpc.DatasetServiceStub, "CreateDataset", request).dataset.uid
    wire.channel.close()
    directory = server.data_dir / "datasets" / uid
    database = server.data_dir / "manyview.sqlite"
    return [directory, directory / "shard-00000000.tar", database, database.with_name("manyview.sqlite-wal")]
