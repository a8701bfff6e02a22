"""Serve the network with mosec: the JPEG file is the body of a request, float32 is the body of its answer."""

from __future__ import annotations

from benchmarks.peers.serving.served_model import ServedModel
from benchmarks.peers.serving.settings import Settings
from mosec import Server, Worker


class Embed(Worker):
    """One worker process."""

    def __init__(self) -> None:
        super().__init__()
        self._model = ServedModel(Settings.read())

    def deserialize(self, data: bytes) -> bytes:
        """Return the body as it is."""
        return data

    def forward(self, data: list[bytes]) -> list[bytes]:
        """Embed a batch."""
        return [row.tobytes() for row in self._model.embed(data)]

    def serialize(self, data: bytes) -> bytes:
        """Return the answer as it is."""
        return data


if __name__ == "__main__":
    settings = Settings.read()
    server = Server()
    server.append_worker(
        Embed, num=settings.workers, max_batch_size=settings.max_batch, max_wait_time=settings.wait_ms, timeout=60
    )
    server.run()
