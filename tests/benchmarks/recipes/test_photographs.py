"""Patches of photographs: none that is held out shares a pixel with one that is trained on."""

from __future__ import annotations

import subprocess
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from benchmarks.recipes.images import HELD_OUT, TRAIN
from benchmarks.recipes.photographs import BLOCK, PATCH, Box, Patch, patches, write
from PIL import Image

from benchmarks.recipes import photographs


def overlap(one: Box, other: Box) -> bool:
    return (
        abs(2 * (one.left - other.left) + one.side - other.side) < one.side + other.side
        and abs(2 * (one.top - other.top) + one.side - other.side) < one.side + other.side
    )


def split(found: list[Patch]) -> tuple[set[Box], set[Box]]:
    train, held_out = ({patch.box for patch in found if patch.part == part} for part in (TRAIN, HELD_OUT))
    return train, held_out


@pytest.mark.parametrize(("width", "height"), [(768, 768), (1228, 768), (768, 1365), (1024, 768)])
def test_held_out_patches_never_overlap_training_patches(width: int, height: int) -> None:
    for seed in range(5):
        train, held_out = split(list(patches(width, height, f"{seed} name")))
        assert len(train) > 2 * len(held_out) > 0
        assert not any(overlap(one, other) for one, other in product(train, held_out))
        assert {box.side for box in train} == {box.side for box in held_out} == {PATCH, BLOCK}
        assert all(box.left + box.side <= width and box.top + box.side <= height for box in train | held_out)


def test_the_seed_alone_chooses_what_is_held_out() -> None:
    chosen = [split(list(patches(1228, 768, seed)))[1] for seed in ("0 one", "0 one", "1 one", "0 other")]
    assert chosen[0] == chosen[1]
    assert len({frozenset(boxes) for boxes in chosen}) == 3


def photograph(flat_from: int = 768) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (768, 1024, 3), dtype=np.uint8)
    pixels[:, flat_from:] = 130
    return Image.fromarray(pixels)


def test_flat_patches_are_left_out_and_the_others_are_written_by_photograph(tmp_path: Path) -> None:
    write(photograph(), "noise", tmp_path, seed=0)
    written = [path.relative_to(tmp_path) for path in tmp_path.glob("*/*/*.jpg")]
    assert len(written) == 9 * 5  # nine of the twelve blocks have details
    assert {path.parts[:2] for path in written} == {(TRAIN, "noise"), (HELD_OUT, "noise")}
    with Image.open(tmp_path / written[0]) as patch:
        assert patch.size == (PATCH, PATCH)


def test_photographs_come_from_packages_by_their_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, debs = tmp_path / "root", tmp_path / "debs"
    debs.mkdir()
    names = ("backgrounds/Dune.jpg", "wallpapers/Path/contents/images/2560x1600.jpg", "backgrounds/drawn.jpg")
    for name in names:
        (root / "usr/share" / name).parent.mkdir(parents=True, exist_ok=True)
        photograph().save(root / "usr/share" / name)
    (root / "DEBIAN").mkdir()
    (root / "DEBIAN/control").write_text(
        "Package: pictures\nVersion: 1.0\nArchitecture: all\nMaintainer: nobody\nDescription: pictures\n"
    )
    subprocess.run(["dpkg-deb", "--build", str(root), str(debs / "pictures_1.0_all.deb")], check=True)
    monkeypatch.setattr(photographs, "PACKAGES", {"pictures": names[:2]})
    monkeypatch.setattr("sys.argv", ["photographs", "--packages", str(debs), "--out", str(tmp_path / "out")])
    photographs.main()
    assert {path.name for path in (tmp_path / "out" / TRAIN).iterdir()} == {"Dune", "Path"}
    assert "pictures_1.0_all.deb" in (tmp_path / "out/source.json").read_text()
