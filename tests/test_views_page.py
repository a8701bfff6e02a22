"""The statements of docs/views.md about presets, parameters and commands are true."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import typer

from manyview._cli.main import app
from manyview_server.learn import methods
from manyview_server.learn.views.presets import PRESETS
from manyview_server.learn.views.recipe import PipelineSettings, ViewSettings

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "views.md").read_text()
CELLS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| `")]
ROWS = {cells[0].strip("`"): cells[1:] for cells in CELLS}


def per_pipeline(text: str, views: ViewSettings) -> list[str]:
    """One for all, or one for each."""
    parts = text.split(" / ")
    return parts if len(parts) > 1 else parts * len(views.pipelines)


def as_told(pipeline: PipelineSettings) -> tuple[str, str, str, str, str]:
    size = "" if pipeline.size_fraction == 1 else " of 3/7"
    jitter = pipeline.color_jitter
    amounts = (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
    strengths = ", ".join(f"{amount * jitter.strength:g}" for amount in amounts) if jitter.probability else ""
    return (
        f"{pipeline.count}{size}",
        f"{pipeline.crop.scale_min:g} to {pipeline.crop.scale_max:g}",
        strengths,
        f"{pipeline.blur.probability:g}",
        f"{pipeline.solarize.probability:g}",
    )


PLAIN = ("mae", "simmim")
"""Recipes of a crop and a mirror."""


def test_the_table_holds_the_presets_as_they_are() -> None:
    assert list(ROWS) == list(PRESETS)
    for name, views in PRESETS.items():
        counts, crop, jitter, blur, solarize, _ = ROWS[name]
        told = zip(
            counts.split(" + "),
            per_pipeline(crop, views),
            per_pipeline(jitter, views),
            per_pipeline(blur or "0", views),
            per_pipeline(solarize or "0", views),
            strict=True,
        )
        assert list(told) == [as_told(pipeline) for pipeline in views.pipelines], name
        for pipeline in views.pipelines:
            assert pipeline.color_jitter.probability == (0 if name in PLAIN else 0.8)
            assert pipeline.grayscale.probability == (0 if name in PLAIN else 0.2)
            assert pipeline.horizontal_flip.probability == 0.5


def test_the_steps_are_in_the_order_of_the_recipe() -> None:
    line = PAGE[PAGE.index("`crop` →") : PAGE.index("→ normalization")]
    fields = list(PipelineSettings.__dataclass_fields__)
    assert re.findall(r"`(\w+)`", line) == fields[fields.index("crop") :]


def test_every_command_is_one_and_its_settings_are_accepted() -> None:
    commands = typer.main.get_command(app)
    lines = re.findall(r"^manyview (.+)$", PAGE, flags=re.MULTILINE)
    assert len(lines) == 4
    for name, *arguments in map(shlex.split, lines):
        commands.commands[name].make_context(name, arguments)  # type: ignore[attr-defined]
    methods.resolve("simclr", {"views": {"blur": {"probability": 0}}})
    methods.resolve("simclr", {"views": {"preset": "byol", "pipelines": {"1": {"solarize": {"threshold": 100}}}}})


def test_the_composed_recipe_is_accepted() -> None:
    (text,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert methods.resolve("simclr", json.loads(text)).views.num_views == 2


def test_every_link_exists() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", PAGE)
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
