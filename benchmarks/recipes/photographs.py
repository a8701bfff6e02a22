"""Make a set of labelled images from photographs in Debian packages: patches, labelled with their photograph.

Each photograph is scaled to a short side of 768 pixels and divided into blocks of 256 x 256. A block gives its four
quarters and, at half the scale, itself: five patches of 128 x 128. A quarter of the blocks of each photograph is held
out, chosen by the seed. No block overlaps another, so no held-out patch overlaps one that is trained on. Patches
without any detail are left out.

    apt-get download lomiri-wallpapers-16.04 lomiri-wallpapers-20.04 mate-backgrounds plasma-workspace-wallpapers
    python -m benchmarks.recipes.photographs --packages . --out photographs
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks.recipes.images import HELD_OUT, TRAIN
from PIL import Image, ImageStat

SHORT_SIDE, BLOCK, PATCH = 768, 256, 128
HELD_OUT_FRACTION = 0.25
FLAT_STD = 6
"""A patch whose gray levels vary less, such as clear sky, shows only a color. It is left out."""
PACKAGES = {
    "lomiri-wallpapers-16.04": (
        "backgrounds/Bridge_by_Sander_Klootwijk.jpg",
        "backgrounds/Dragonfly_by_Bolly.jpg",
        "backgrounds/Picture_0B_by_freespace.jpg",
        "backgrounds/Picture_1A_by_freespace.jpg",
        "backgrounds/Wine_by_Jakkub_Mede.jpg",
        "backgrounds/aitzgorri_by_Aitzol_Berasategi.jpg",
        "backgrounds/free_by_Peter_Nerlich.jpg",
        "backgrounds/friends_by_Aitzol_Berasategi.jpg",
        "backgrounds/greentock_by_Peter_Nerlich.jpg",
        "backgrounds/life_by_Aitzol_Berasategi.jpg",
        "backgrounds/picosdeeuropa_by_Aitzol_Berasategi.jpg",
        "backgrounds/seeding_by_Clements_Engelhardt.jpg",
        "backgrounds/sunset_by_Aitzol_Berasategi.jpg",
    ),
    "lomiri-wallpapers-20.04": ("backgrounds/Kleiber_by_Lukas_Baubkus.jpg",),
    "mate-backgrounds": (
        "backgrounds/mate/nature/Aqua.jpg",
        "backgrounds/mate/nature/Blinds.jpg",
        "backgrounds/mate/nature/Dune.jpg",
        "backgrounds/mate/nature/FreshFlower.jpg",
        "backgrounds/mate/nature/Garden.jpg",
        "backgrounds/mate/nature/GreenMeadow.jpg",
        "backgrounds/mate/nature/LadyBird.jpg",
        "backgrounds/mate/nature/RainDrops.jpg",
        "backgrounds/mate/nature/Storm.jpg",
        "backgrounds/mate/nature/TwoWings.jpg",
        "backgrounds/mate/nature/Wood.jpg",
        "backgrounds/mate/nature/YellowFlower.jpg",
    ),
    "plasma-workspace-wallpapers": tuple(
        f"wallpapers/{name}/contents/images/2560x1600.jpg"
        for name in (
            "BytheWater",
            "ColdRipple",
            "ColorfulCups",
            "DarkestHour",
            "EveningGlow",
            "FallenLeaf",
            "Grey",
            "Kite",
            "OneStandsOut",
            "Path",
            "summer_1am",
        )
    ),
}
"""The photographs in each package, below /usr/share. The other pictures in these packages are drawn."""


class Box(NamedTuple):
    """A square of a photograph that was scaled to `SHORT_SIDE`, in pixels."""

    left: int
    top: int
    side: int


@dataclass(frozen=True)
class Patch:
    """A patch, and the part of the data set to which it belongs."""

    box: Box
    part: str


def main() -> None:
    """Write OUT/train/PHOTOGRAPH/*.jpg and OUT/validation/PHOTOGRAPH/*.jpg, and list their source."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--packages", type=Path, required=True, help="folder with the packages, PACKAGE_VERSION_all.deb"
    )
    parser.add_argument("--out", type=Path, required=True, help="new folder for the patches")
    parser.add_argument("--seed", type=int, default=0, help="chooses the blocks that are held out")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True)
    used = {}
    for package, names in PACKAGES.items():
        deb = next(iter(sorted(arguments.packages.glob(f"{package}_*.deb"))), None)
        if deb is None:
            parser.error(f"{arguments.packages} has no {package}_*.deb; run apt-get download {package} there")
        used[package] = deb.name
        for name, photograph in _photographs(deb, names):
            write(photograph, name, arguments.out, arguments.seed)
    (arguments.out / "source.json").write_text(json.dumps({"seed": arguments.seed, "packages": used}, indent=1) + "\n")
    for part in (TRAIN, HELD_OUT):
        print(f"{part}: {len(list(arguments.out.glob(f'{part}/*/*')))} patches")
    print("\n".join(used.values()))


def write(photograph: Image.Image, name: str, out: Path, seed: int) -> None:
    """Write the patches of a photograph below `out`."""
    scale = SHORT_SIDE / min(photograph.size)
    width, height = (round(side * scale) for side in photograph.size)
    scaled = photograph.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    for patch in patches(width, height, f"{seed} {name}"):
        left, top, side = patch.box
        pixels = scaled.crop((left, top, left + side, top + side)).resize((PATCH, PATCH), Image.Resampling.LANCZOS)
        if ImageStat.Stat(pixels.convert("L")).stddev[0] < FLAT_STD:
            continue
        path = out / patch.part / name / f"{left:04d}_{top:04d}_{side}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels.save(path, quality=92)


def patches(width: int, height: int, seed: str) -> Iterator[Patch]:
    """Yield the patches of a scaled photograph: five for each block."""
    blocks = [Box(left, top, BLOCK) for top in _starts(height) for left in _starts(width)]
    held_out = set(random.Random(seed).sample(blocks, max(1, round(HELD_OUT_FRACTION * len(blocks)))))
    for block in blocks:
        part = HELD_OUT if block in held_out else TRAIN
        yield Patch(block, part)
        for down in (0, PATCH):
            for right in (0, PATCH):
                yield Patch(Box(block.left + right, block.top + down, PATCH), part)


def _starts(length: int) -> range:
    return range(0, length - BLOCK + 1, BLOCK)


def _photographs(deb: Path, names: tuple[str, ...]) -> Iterator[tuple[str, Image.Image]]:
    """Yield the photographs of a package, each with a name of its own."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as unpacking:
        with tarfile.open(fileobj=unpacking.stdout, mode="r|") as members:
            for member in members:
                name = member.name.removeprefix("./usr/share/")
                if name in names and (file := members.extractfile(member)):
                    yield label(name), Image.open(file)
        if unpacking.wait():
            raise SystemExit(f"dpkg-deb could not unpack {deb}")


def label(name: str) -> str:
    """Return the name of a photograph: that of its folder if the file is named after its size."""
    path = Path(name)
    return path.parts[1] if path.parts[0] == "wallpapers" else path.stem


if __name__ == "__main__":
    main()
