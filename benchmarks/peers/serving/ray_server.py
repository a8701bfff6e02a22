"""Serve the network with Ray Serve: the JPEG file is the body of a request, float32 is the body of its answer."""

from __future__ import annotations

import os
import time
from typing import Any

import ray
from benchmarks.peers.serving.served_model import ServedModel
from benchmarks.peers.serving.settings import Settings
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

SETTINGS = Settings.read()


@serve.deployment(
    num_replicas=SETTINGS.workers, max_ongoing_requests=4 * SETTINGS.max_batch, ray_actor_options={"num_cpus": 0}
)
class Embed:
    """A replica of the deployment."""

    def __init__(self) -> None:
        self._model = ServedModel(SETTINGS)

    @serve.batch(max_batch_size=SETTINGS.max_batch, batch_wait_timeout_s=SETTINGS.wait_ms / 1e3)
    async def embed(self, jpegs: list[bytes]) -> list[bytes]:
        """Embed a batch."""
        return [row.tobytes() for row in self._model.embed(jpegs)]

    async def __call__(self, request: Request) -> Response:
        """Answer a request, in a batch with others."""
        return Response(await self.embed(await request.body()), media_type="application/octet-stream")


if __name__ == "__main__":
    environment: dict[str, Any] = {"env_vars": {"PYTHONPATH": os.environ["PYTHONPATH"], **SETTINGS.variables()}}
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=200 << 20,
        log_to_driver=False,
        runtime_env=environment,
        _node_ip_address="127.0.0.1",
    )
    serve.start(http_options={"host": "127.0.0.1", "port": SETTINGS.port})
    deployment: Any = Embed
    serve.run(deployment.bind())
    try:
        while True:
            time.sleep(1)
    finally:
        ray.shutdown()
