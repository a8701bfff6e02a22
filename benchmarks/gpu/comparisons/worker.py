"""Checks of the worker: checkpoints and models over devices, whole jobs in this process, the choice of precision."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.gpu.bench import CPU, Bench, relative_error
from benchmarks.gpu.comparisons import pictures
from benchmarks.gpu.comparisons.steps import WHY, built, settings_of, step_of, views_of
from safetensors.torch import load_file
from torch import Tensor

from manyview_server.learn import methods
from manyview_server.learn.methods import Method
from manyview_server.learn.optimizers import Optimizer
from manyview_server.messages.embedding import ModelKey
from manyview_server.messages.message import Message
from manyview_server.messages.training import CheckpointWritten, ScalarsLogged, StartTraining
from manyview_server.store.images.shard_writers import ShardWriter
from manyview_server.store.images.shards import SNAPSHOT_DTYPE, image_id_of
from manyview_server.store.jobs import checkpoints
from manyview_server.worker import checkpoint_state, precision
from manyview_server.worker.embedding.model_cache import load

CHECKPOINTED = ("moco", "swav", "dino", "mae")
"""Methods that together have every kind of state: bank, queue, teacher, center, prototypes, a decoder."""
PLAIN = ("resnet50", "vit_small", "torchvision/mobilenet_v3_small", "timm/convnext_atto")


def checkpoints_and_models(bench: Bench) -> None:
    """Check that a checkpoint goes from the device to the CPU and back bit for bit, and that a model embeds alike on
    both."""
    for number, name in enumerate(CHECKPOINTED):
        changes = {"optimizer": {"name": "adamw"}} if number % 2 else {}
        settings = settings_of(bench, name, **changes)
        method, optimizer = built(settings, bench.device)
        images = pictures.tensor(settings.batch_size or 2, 2 * settings.image_size)
        for step in range(2):
            step_of(method, optimizer, views_of(images, settings, step), step)
        written = saved(bench.scratch / f"{name}-1", method, optimizer)
        on_cpu = built(settings, CPU)
        checkpoint_state.restore(bench.scratch / f"{name}-1", *on_cpu)
        again = saved(bench.scratch / f"{name}-2", *on_cpu)
        back = built(settings, bench.device)
        checkpoint_state.restore(bench.scratch / f"{name}-2", *back)
        for where, tensors in (("read on the CPU", again), ("and back", saved(bench.scratch / f"{name}-3", *back))):
            equal = tensors.keys() == written.keys() and all(torch.equal(tensors[k], written[k]) for k in written)
            bench.check(f"checkpoint of {name}, {where}", equal, f"{len(written)} tensors, bit for bit")
    for name in PLAIN if not bench.quick else PLAIN[-1:]:
        embedded(bench, name)


def saved(directory: Path, method: Method, optimizer: Optimizer) -> dict[str, Tensor]:
    """Write a checkpoint, and return the tensors of its files."""
    checkpoint_state.write(directory, checkpoint_state.capture(method, optimizer), json.dumps({"step": 2}).encode())
    return load_file(directory / checkpoints.BACKBONE) | load_file(directory / checkpoints.STATE)


def embedded(bench: Bench, name: str) -> None:
    """Check that a plain backbone embeds the same images alike on both devices."""
    key = ModelKey(name="", checkpoint_dir="", backbone=name, weights_file="", output="backbone")
    images = pictures.tensor(4, 224)
    expected, found = (load(key, device).embed(images) for device in (CPU, bench.device))
    bench.close(f"model {name}", found, expected, 1e-3, "float32; batch norms are folded on both sides")


class Sent:
    """A channel that keeps every message."""

    def __init__(self) -> None:
        self.received: list[Message] = []

    def send(self, message: Message) -> None:
        """Keep the message."""
        self.received.append(message)

    def losses(self) -> list[float]:
        """Return the losses by step."""
        return [m.values["loss"] for m in self.received if isinstance(m, ScalarsLogged) if "loss" in m.values]

    def checkpoints(self) -> list[Path]:
        """Return the checkpoints in the order in which they were written."""
        return [Path(m.directory) for m in self.received if isinstance(m, CheckpointWritten)]


def jobs(bench: Bench) -> None:
    """Run whole jobs in this process: with the images on the device, in memory and grown, and a resumed job."""
    from manyview_server.worker.training.trainer import Trainer  # it imports the decoder

    count = bench.size(600, 48)
    dataset = bench.scratch / "dataset"
    snapshot = written(dataset, pictures.jpegs(count, bench.size(80, 20), bench.size(64, 16)))
    caches(bench, dataset, snapshot)

    def trained(name: str, device: torch.device = bench.device, **fields: Any) -> Sent:
        sent = Sent()
        start = start_of(bench, dataset, snapshot, bench.scratch / name, device, **fields)
        bench.check(f"job {name}", Trainer(sent, start).train() == "succeeded")
        return sent

    whole, memory = trained("whole"), trained("from memory", cache_bytes=0)
    apart = float((torch.tensor(whole.losses()) - torch.tensor(memory.losses())).abs().max())
    bench.figure("context", "losses of equal jobs, most apart", apart, "", caches="device and memory")
    on_cpu = trained("on the cpu", CPU)
    pairs = list(zip(on_cpu.losses()[1:4], whole.losses()[1:4], strict=True))  # the first has an empty bank: 0
    error = max(abs(theirs - ours) / theirs for theirs, ours in pairs)
    bench.check("first losses beside the CPU's", error <= 0.02, f"relative error {error:.2g}, at most 0.02: {WHY}")
    half = whole.checkpoints()[0]
    resumed = trained("resumed", resume_from=str(half), attempt=2)
    ends = [load_file(sent.checkpoints()[-1] / checkpoints.BACKBONE) for sent in (whole, resumed)]
    error = max(relative_error(ends[1][name], tensor) for name, tensor in ends[0].items() if tensor.is_floating_point())
    equal = all(torch.equal(ends[1][name], tensor) for name, tensor in ends[0].items())
    where = {"bit for bit": equal, "device": bench.device.type}
    bench.figure("context", "weights of a resumed job, relative error", error, "", **where)
    bench.check("a resumed job comes near to the whole one", error <= 0.05, f"relative error {error:.2g}")


def start_of(
    bench: Bench, dataset: Path, snapshot: Any, directory: Path, device: torch.device, **fields: Any
) -> StartTraining:
    """Return the start of a job of two epochs in float32."""
    settings = settings_of(
        bench,
        "moco",
        epochs=2,
        precision="float32",
        memory_format="channels_last",
        log_every_steps=1,
        evaluation={"knn_k": 5, "knn_holdout_fraction": 0.2},
    )
    values: dict[str, Any] = {
        "train_job": "job",
        "attempt": 1,
        "settings": methods.to_json(settings),
        "dataset_dir": str(dataset),
        "checkpoint_dir": str(directory),
        "resume_from": "",
        "device": str(device),
        "num_threads": torch.get_num_threads(),
        "cache_bytes": 1 << 32,
        "blobs": (snapshot.tobytes(),),
    }
    return StartTraining(**{**values, **fields})


def written(directory: Path, images: list[bytes]) -> Any:
    """Write the images as a shard, and return the snapshot of the data set."""
    directory.mkdir(parents=True)
    writer = ShardWriter(directory)
    rows = np.zeros(len(images), SNAPSHOT_DTYPE)
    for number, (row, data) in enumerate(zip(rows, images, strict=True)):
        digest, label = hashlib.sha256(data).digest(), number % pictures.CLASSES
        row["image_id"], row["label"], row["length"] = image_id_of(digest), label, len(data)
        commit = {"sha256": digest.hex(), "key": "", "label": str(label)}
        row["shard"], row["offset"] = writer.append(image_id_of(digest), "jpg", data, commit)
        row["width"], row["height"] = 80, 64
    writer.sync()
    writer.close()
    return rows


def caches(bench: Bench, dataset: Path, snapshot: Any) -> None:
    """Check that pixels are the same wherever they are kept, also if none are, and after more images were added."""
    from manyview_server.worker.job_images.decoded_images import DecodedImages
    from manyview_server.worker.job_images.image_decoder import ImageDecoder
    from manyview_server.worker.job_images.image_index import ImageIndex
    from manyview_server.worker.job_images.pixel_store import PixelStore

    size, rows = bench.size(128, 32), torch.arange(len(snapshot))

    def images(device: torch.device, cache_bytes: int, count: int = len(snapshot)) -> DecodedImages:
        store = PixelStore(size, device, cache_bytes)
        return DecodedImages(ImageIndex(snapshot[:count]), ImageDecoder(dataset, size), store, num_threads=4)

    expected = images(CPU, 1 << 32).gather(rows).images
    growing = images(bench.device, 1 << 32, 20)
    growing.gather(torch.arange(20))
    growing.grow(ImageIndex(snapshot))
    kept = {
        "on the device": images(bench.device, 1 << 32),
        "on the device and beside it": images(bench.device, 10 * 3 * size**2),
        "beside the device": images(bench.device, 0),
        "grown": growing,
    }
    for place, found in kept.items():
        for time in ("first", "again"):
            bench.same(f"images {place}, {time}", found.gather(rows.flip(0)).images, expected.flip(0))
        found.close()
    places = {place: found.store.device_capacity for place, found in kept.items()}
    wanted = {"on the device": len(rows), "on the device and beside it": 10, "beside the device": 0}
    bench.check("places of images", places.items() >= wanted.items(), f"{places}, wanted {wanted}")


def precisions(bench: Bench) -> None:
    """Check the choice of "auto", and time every candidate."""
    settings = settings_of(bench, "simclr", image_size=bench.size(224, 16), batch_size=bench.size(128, 4))
    found = precision.choose(settings, bench.device)
    bench.check("auto precision is chosen", found in list(precision.candidates(settings, bench.device)), str(found))
    for numerics in precision.candidates(settings, bench.device):
        seconds = precision.seconds_per_step(settings, bench.device, numerics)
        layout = "channels_last" if numerics.channels_last else "contiguous"
        conditions = {"backbone": "resnet18", "images": bench.size(128, 4), "chosen": numerics == found}
        bench.figure("context", f"step in {numerics.precision}, {layout}", seconds * 1e3, "ms", **conditions)
    switches = (torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision)  # type: ignore[attr-defined]
    bench.check("TF32 is off", switches == ("ieee", "ieee"), str(switches))
    if bench.cuda:
        a = torch.randn(512, 512, dtype=torch.float64)
        product = (a.float().to(bench.device) @ a.float().to(bench.device)).cpu()
        bench.close("a product of float32 is exact", product, a @ a, 1e-5, "TF32 would be near 3e-4")
