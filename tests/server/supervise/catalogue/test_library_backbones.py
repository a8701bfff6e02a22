"""Names of networks are checked by a worker, once each, and a worker that fails refuses nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from manyview_server.supervise.catalogue.library_backbones import LibraryBackbones


def command(program: str) -> tuple[str, ...]:
    return (sys.executable, "-S", "-c", program)


def answers(log: Path) -> tuple[str, ...]:
    """A worker that knows timm/resnet18 alone, and notes each name that it is asked about."""
    return command(
        "import json, sys; name = sys.argv[sys.argv.index('--backbone') + 1]; "
        f"open({str(log)!r}, 'a').write(name + '\\n'); "
        "print(json.dumps({'problem': '' if name == 'timm/resnet18' else f'unknown backbone {name}'}))"
    )


async def test_a_name_that_exists_is_asked_about_once(tmp_path: Path) -> None:
    log = tmp_path / "asked"
    library_backbones = LibraryBackbones(command=answers(log))
    assert await library_backbones.problem("resnet18") == "", "our own names are in the catalogue"
    for _ in range(2):
        assert await library_backbones.problem("timm/resnet18") == ""
        assert await library_backbones.problem("timm/resnet18x") == "unknown backbone timm/resnet18x"
    assert log.read_text().split() == ["timm/resnet18", "timm/resnet18x", "timm/resnet18x"]


@pytest.mark.parametrize(
    "program", ["import sys; sys.exit('no timm')", "print('what?')", "import time; time.sleep(60)"]
)
async def test_a_worker_that_fails_refuses_nothing(program: str, caplog: pytest.LogCaptureFixture) -> None:
    library_backbones = LibraryBackbones(command=command(program), deadline_s=0.5)
    assert await library_backbones.problem("timm/resnet18x") == ""
    assert "cannot check the name of a backbone" in caplog.text


async def test_what_the_authors_say_is_passed_on_and_an_answer_that_is_damaged_is_none() -> None:
    stated = {"image_size": 8, "resize_size": 9, "crop": "center", "interpolation": "bicubic", "source": "its authors"}
    stated |= {"mean": [0.5] * 3, "std": [0.5] * 3}
    answer = {"problem": "", "preprocessing": stated}
    found = await LibraryBackbones(command=command(f"print({json.dumps(json.dumps(answer))})")).find("timm/resnet18")
    assert found is not None
    assert found.preprocessing is not None
    assert (found.preprocessing.resize_size, found.preprocessing.source) == (9, "its authors")
    damaged = {"problem": "", "preprocessing": {"image_size": 8, "source": ""}}
    assert await LibraryBackbones(command=command(f"print({json.dumps(json.dumps(damaged))})")).find("timm/x") is None
