"""Make the store of an old release that `test_old_stores.py` opens: its data directory, packed as a .tar.xz.

Check the old commit out beside this tree, and run this file with that tree's code and this tree's packages:

    git worktree add --detach ../old 985730b~1
    cd ../old && PYTHONPATH=server:client \\
        THIS_TREE/.venv/bin/python THIS_TREE/tests/server/store/startup/old_stores/make.py OUT

The stores here were made so:

    schema-1.tar.xz     985730b~1    the first schema that landed
    schema-2.tar.xz     9b4f895~1    jobs that continue others and follow their data set
    schema-3.tar.xz     9d419e1      an index of keys; model cards of vision transformers
    schema-3b.tar.xz    860f9fe      the last one without a generation
    schema-4.tar.xz     aede3ca      the first one with a generation
    schema-5.tar.xz     this tree    data sets know whether an upload created them

A real server of the old release takes eight images, refuses a ninth, and trains two steps. Random weights do not
compress, so the checkpoint's tensors are then rounded to eighths and the hashes in its manifest are made right again.
Files that each start makes again are left out.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import manyview

CONFIG = {
    "backbone_width": 0.125,
    "image_size": 16,
    "batch_size": 4,
    "precision": "float32",
    "log_every_steps": 1,
    "projection_hidden_dim": 16,
    "projection_dim": 8,
    "evaluation": {"knn_every_epochs": 0},
    "views": {"color_jitter": {"strength": 0.25}},
}
MADE_ANEW = {"LOCK", "BALLAST", "catalogue.json", "compiled", "embeddings"}


def main(out: Path) -> None:
    """Make the store and pack it."""
    with tempfile.TemporaryDirectory() as scratch:
        data, photos = Path(scratch) / "data", Path(scratch) / "photos"
        _write_photos(photos)
        command = [sys.executable, "-m", "manyview_server", "serve", "--data", str(data), "--listen", "127.0.0.1:0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=dict(os.environ)) as server:
            assert server.stdout is not None
            try:
                _fill(json.loads(server.stdout.readline())["address"], photos)
            finally:
                server.send_signal(signal.SIGTERM)
        for checkpoint in data.glob("jobs/*/checkpoints/*-*"):
            _round(checkpoint)
        with tarfile.open(out, "w:xz", preset=9) as archive:
            for path in sorted(data.iterdir()):
                if path.name not in MADE_ANEW:
                    archive.add(path, path.name, filter=_anonymous)
    print(out, out.stat().st_size, "bytes")


def _fill(address: str, photos: Path) -> None:
    with manyview.Client(address) as client:
        client.upload(photos, "photos")
        client.train("photos", "simclr", backbone="resnet9", epochs=1, config=CONFIG, job_id="first").wait()


def _write_photos(folder: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(8):
        path = folder / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 4, (8, 8, 3), dtype=np.uint8) * 85
        Image.fromarray(pixels).save(path)
    # Refused: a PNG that is cut short.
    (folder / "class0" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")


def _round(checkpoint: Path) -> None:
    manifest = json.loads((checkpoint / "MANIFEST.json").read_text())
    for path in checkpoint.glob("*.safetensors"):
        data = bytearray(path.read_bytes())
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length])
        for name, tensor in header.items():
            if name != "__metadata__" and tensor["dtype"] == "F32":
                start, end = (8 + length + offset for offset in tensor["data_offsets"])
                values = np.frombuffer(bytes(data[start:end]), "<f4")
                data[start:end] = (np.round(values * 8) / 8).astype("<f4").tobytes()
        path.write_bytes(data)
        manifest["files"][path.name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (checkpoint / "MANIFEST.json").write_text(json.dumps(manifest, indent=1))


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
