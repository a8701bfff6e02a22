"""The committed stubs are those of the contract, and every part of it is in use."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SERVICES = sorted(path.stem for path in (ROOT / "proto" / "manyview" / "v1").glob("*_service.proto"))

HOMES = {
    "dataset_service": "manyview_server.front.datasets.service",
    "train_job_service": "manyview_server.front.jobs.service",
    "metrics_service": "manyview_server.front.jobs.metrics",
    "embed_service": "manyview_server.front.embeddings.service",
    "model_service": "manyview_server.front.models.service",
}


def test_the_stubs_match_the_contract() -> None:
    """Without the generator the descriptors are compared; `make check` compares the files themselves."""
    command = [sys.executable, str(ROOT / "proto" / "check.py"), "--generator", sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_every_rpc_of_the_contract_is_implemented(name: str) -> None:
    service = next(iter(importlib.import_module(f"manyview.v1.{name}_pb2").DESCRIPTOR.services_by_name.values()))
    base = getattr(importlib.import_module(f"manyview.v1.{name}_pb2_grpc"), f"{service.name}Servicer")
    module = importlib.import_module(HOMES[name])
    servicers = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, base)]
    ours = next(servicer for servicer in servicers if servicer is not base)
    missing = [method.name for method in service.methods if getattr(ours, method.name) is getattr(base, method.name)]
    assert missing == []
