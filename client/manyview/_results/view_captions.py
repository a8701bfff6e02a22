"""The steps that made a view, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from manyview._progress.words import number_of


def steps(parameters: Mapping[str, Any]) -> Iterator[str]:
    """Yield the steps in their order, as in "crop 90x64 at 10,20", "flip" or "hue +0.08"."""
    for name, value in parameters.items():
        match name:
            case "crop":
                yield f"crop {value['width']}x{value['height']} at {value['left']},{value['top']}"
            case "horizontal_flip" | "vertical_flip":
                yield "flip" if name == "horizontal_flip" else "upside down"
            case "quarter_turn" | "rotation":
                yield f"turned {value['degrees']:.0f}°"
            case "color_jitter":
                for change in value["order"]:
                    yield f"hue {value[change]:+.2f}" if change == "hue" else f"{change} x{value[change]:.2f}"
            case "blur":
                yield f"blur {value['sigma']:.1f}"
            case "hidden_patches":
                hidden = number_of(len(value["patches"]), "patch", "patches")
                yield f"{hidden} hidden"
            case "custom":
                yield from value
            case _:
                yield name
