"""Packages with plugins, put where Python looks for installed ones."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

EXAMPLES = Path(__file__).parents[3] / "examples"

POSTERIZE = '''
from dataclasses import dataclass

from manyview_server.configuration import setting
from manyview_server.learn.views import Transform


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Fewer levels of color."""

    probability: float = setting(0.0, "Probability that a view has fewer levels.", minimum=0, maximum=1)
    bits: int = setting(4, "Bits of each color that are kept.", minimum=1, maximum=8, needs=("probability",))
    spread: float = setting(0.0, "Amount of noise before.", minimum=0, maximum=1, needs=("probability",))


def change(planes, numbers, settings):
    planes = planes + settings.spread * (numbers[:, 0, None, None].float() - 0.5)
    levels = 2**settings.bits
    return (planes.clamp(0, 1) * 255 // (256 // levels)) * (256 // levels) / 255


TRANSFORM = Transform(settings=Settings, change=change, num_draws=2)
'''


def install(
    site: Path, name: str, source: str, *, group: str = "manyview.transforms", attribute: str = "TRANSFORM"
) -> None:
    """A package `NAME_plugin` 1.0 whose module registers its `attribute` as `name` in `group`."""
    module = f"{name}_plugin"
    information = site / f"{module}-1.0.dist-info"
    information.mkdir(parents=True)
    (site / f"{module}.py").write_text(textwrap.dedent(source))
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[{group}]\n{name} = {module}:{attribute}\n")
    (information / "RECORD").write_text(f"{module}.py,,\n")


def install_examples(names: Sequence[str], site: Path) -> None:
    """Install the packages `examples/NAME` into the folder `site`, as an installer does."""
    options = ["--no-deps", "--no-build-isolation", "--python", sys.executable, "--target", str(site)]
    uv = Path(sys.executable).parent / "uv"
    folders = [str(EXAMPLES / name) for name in names]
    subprocess.run([str(uv), "pip", "install", "--quiet", *options, *folders], check=True, timeout=60)
