"""Check that torch does on a CPU what manyview and its plugins need, and raise AssertionError if it does not.

This runs while the image for the CPU is built, after libraries were cut and replaced, or after torch came from an index
of CPU builds.
"""

from __future__ import annotations

import io
from importlib.metadata import distributions

import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional


def main() -> None:
    """Run each check."""
    check_packages()
    for name in ("timm/vit_tiny_patch16_224", "timm/convnext_atto", "torchvision/resnet18"):
        check_training(name)
    check_operators()
    check_compilation()
    print(f"torch {torch.__version__} works on this CPU")


def check_packages() -> None:
    """Look for CUDA, of which there must be neither a package nor a device."""
    names = {each.name for each in distributions()}
    assert not [name for name in names if name.startswith(("nvidia-", "cuda-", "triton"))], names
    assert not torch.cuda.is_available()
    assert torch.cuda.device_count() == 0


def check_training(name: str) -> None:
    """Take a step in bfloat16, which must change the weights. Their file must restore them."""
    library, _, network = name.partition("/")
    model: nn.Module = timm.create_model(network) if library == "timm" else torchvision.models.get_model(network)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    images, labels = torch.randn(4, 3, 224, 224), torch.arange(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = functional.cross_entropy(model(images), labels)
    loss.backward()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer.step()
    assert torch.isfinite(loss), name
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True)), name
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    restored = torch.load(file, weights_only=True)
    assert all(torch.equal(value, restored[key]) for key, value in model.state_dict().items()), name


def check_operators() -> None:
    """Call the compiled operators of torchvision, the linear algebra and the Fourier transform."""
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    assert torchvision.ops.nms(boxes, torch.tensor([0.5, 0.6]), 0.5).tolist() == [1]
    image = torch.arange(192, dtype=torch.uint8).reshape(3, 8, 8)
    assert torch.equal(torchvision.io.decode_image(torchvision.io.encode_png(image)), image)
    matrix = torch.randn(5, 5)
    u, s, v = torch.linalg.svd(matrix)
    assert torch.allclose(u @ torch.diag(s) @ v, matrix, atol=1e-4)
    assert torch.allclose(torch.fft.ifft(torch.fft.fft(matrix)).real, matrix, atol=1e-4)


def check_compilation() -> None:
    """Compare compiled code with the code. This needs the C++ compiler and the headers of Python."""
    compiled = torch.compile(lambda x: torch.sin(x) + x * 2)
    x = torch.arange(64.0)
    assert torch.allclose(compiled(x), torch.sin(x) + x * 2)


if __name__ == "__main__":
    main()
