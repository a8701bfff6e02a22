"""README's ten lines do what README says, as a program of their own beside a folder of photographs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.service.harness import write_photos

README = Path(__file__).parent.parent.parent / "README.md"
NUM_PHOTOS = 300


@pytest.mark.long
@pytest.mark.timeout(300)
def test_the_ten_lines_print_losses_accuracies_and_neighbors(tmp_path: Path) -> None:
    text = README.read_text()
    lines = text[text.index("```python\n") + 10 :].split("```")[0]
    assert 'time_budget="10m"' in lines
    (tmp_path / "ten_lines.py").write_text(lines.replace('time_budget="10m"', 'time_budget="20s"'))
    (tmp_path / "images").mkdir()
    write_photos(tmp_path / "images", NUM_PHOTOS, seed=0, side=96)
    for name, photo in zip(("a.jpg", "b.jpg"), sorted((tmp_path / "images").rglob("*.jp*g")), strict=False):
        shutil.copy(photo, tmp_path / name)
    done = subprocess.run([sys.executable, "ten_lines.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^step +\d+, epoch +\d+  loss \d", done.stdout, re.MULTILINE), done.stdout
    assert re.search(r"^step .*knn_top1 (1|0\.\d)", done.stdout, re.MULTILINE)
    assert re.search(r"^loss +\d\S* +\d", done.stdout, re.MULTILINE), "the history"
    for name in ("a.jpg", "b.jpg"):
        (near,) = re.findall(rf"^{name} \[(.*)\]$", done.stdout, re.MULTILINE)
        assert near.count(", ") == 4, "five neighbors"
    assert (tmp_path / "backbone.safetensors").stat().st_size > 100_000
