"""The image for the CPU is small and has no CUDA, and the one for a GPU has it.

The second is large, and only `make image-test IMAGE_TESTS=image` builds it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from support.service.compose import Compose, require_engine

pytestmark = [pytest.mark.image, pytest.mark.timeout(2400)]

MOST_BYTES = 1.7e9
"""The image has 1.5 GB on Debian's Python, and less on the official base."""
PACKAGES = """
import importlib.metadata, json
print(json.dumps(sorted(each.name for each in importlib.metadata.distributions())))
"""
TORCH = """
import json, torch, torchvision
boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
kept = torchvision.ops.nms(boxes, torch.tensor([0.5, 0.6]), 0.5).tolist()
print(json.dumps([torch.cuda.is_available(), torch.cuda.device_count(), kept]))
"""
REFUSAL = """
import torch
try:
    torch.zeros(1, device="cuda")
except RuntimeError as error:
    print(str(error).splitlines()[0])
"""


def packages_of_cuda(names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(("nvidia-", "cuda-", "triton"))]


def test_the_image_for_the_cpu_has_no_package_of_cuda_and_is_small(compose: Compose) -> None:
    assert packages_of_cuda(json.loads(compose.execute("python", "-", stdin=PACKAGES))) == []
    assert compose.image_bytes() < MOST_BYTES
    assert compose.execute("find", "/opt", "/usr", "-name", "libcu*.so*", "-size", "+1024k") == ""


def test_torch_finds_no_device_in_the_image_for_the_cpu_and_says_so(compose: Compose) -> None:
    assert json.loads(compose.execute("python", "-", stdin=TORCH)) == [False, 0, [1]]
    assert "CUDA" in compose.execute("python", "-", stdin=REFUSAL)


@pytest.mark.long
def test_the_image_for_a_gpu_has_cuda(tmp_path: Path) -> None:
    require_engine()
    project = Compose(f"manyview-gpu-image-test-{os.getpid()}", tmp_path, image="manyview:gpu-image-test")
    project.build("compose.gpu.yml")
    names = json.loads(project.run_once("python", "-c", PACKAGES))
    assert {"nvidia-cublas", "nvidia-cudnn-cu13", "triton"} <= set(names)
    # The libraries are real ones: a stub of cuBLAS would answer with another version.
    version = "import torch, ctypes; print(ctypes.CDLL('libcublasLt.so.13').cublasLtGetVersion())"
    assert int(project.run_once("python", "-c", version)) > 130_000
    assert project.run_once("python", "-c", TORCH) == "[false, 0, [1]]"
