"""Serve the network with LitServe: a form with one file in, float32 out.

LitServe reads the annotations of `decode_request`, so they must not be strings.
"""

from typing import Any

import litserve
from benchmarks.peers.serving.served_model import ServedModel
from benchmarks.peers.serving.settings import Settings
from fastapi import Request, Response


class Embed(litserve.LitAPI):
    """The API, of which each worker process has a copy."""

    def setup(self, device: str) -> None:
        """Load the network."""
        self._model = ServedModel(Settings.read())

    def decode_request(self, request: Request) -> bytes:
        """Return the file of the form."""
        form: Any = request
        data: bytes = form["image"].file.read()
        return data

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        """Return the files as they are."""
        return inputs

    def predict(self, x: list[bytes]) -> Any:
        """Embed a batch."""
        return self._model.embed(x)

    def unbatch(self, output: Any) -> list[Any]:
        """Return a row for each image."""
        return list(output)

    def encode_response(self, output: Any) -> Response:
        """Return a row as bytes."""
        return Response(output.tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    settings = Settings.read()
    api = Embed(max_batch_size=settings.max_batch, batch_timeout=settings.wait_ms / 1e3)
    server = litserve.LitServer(
        api, accelerator="cpu", workers_per_device=settings.workers, timeout=60, fast_queue=settings.fast_queue
    )
    server.run(host="127.0.0.1", port=settings.port, num_api_servers=1, generate_client_file=False, log_level="warning")
