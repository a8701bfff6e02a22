"""The script tries its lines on the CPU: some quick sections of it here, all of them by `make gpu`."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from benchmarks.gpu.plan import SECTIONS

from support.learning import forked

ROWS = {section.name: section.rows for section in SECTIONS}
ROOT = Path(__file__).parent.parent.parent.parent
CHOSEN = ("losses", "optimizers", "selection", "memory", "bank", "decoding")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    program = f"""
import os, runpy, sys
os.chdir({str(ROOT)!r})
sys.path.insert(0, "")
sys.argv[1:] = {arguments!r}
runpy.run_module("benchmarks.gpu", run_name="__main__", alter_sys=True)
"""
    return forked.run(program, os.environ | environment)


def test_sections_run_on_a_machine_without_a_gpu_and_say_that_they_compare_nothing(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    done = run("--device", "cpu", "--quick", "--out", str(out), "--only", *CHOSEN)
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads(out.read_text())
    assert {each["section"]: each["status"] for each in content["sections"]} == dict.fromkeys(CHOSEN, "ok")
    for each in content["sections"]:
        assert "comparisons with the CPU: no CUDA device: the CPU was compared with itself" in each["skipped"]
        assert each["checks"] or each["figures"]
        assert {figure["row"] for figure in each["figures"]} <= {*ROWS[each["section"]], "context"}
    assert content["card"] == "none"
    assert content["quick"] is True
    assert "G10" in done.stdout


def test_a_missing_device_is_an_error_and_starts_no_dry_run() -> None:
    done = run("--device", "cuda", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 2
    assert "--device cpu --quick" in done.stderr


def test_a_server_finds_its_version_where_it_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", "before")
    main = importlib.import_module("benchmarks.gpu.__main__")
    monkeypatch.setenv("PYTHONPATH", "before")
    monkeypatch.setattr(main.wheels, "installed_version", lambda name: None)
    main.state_version(tmp_path)
    first, _, rest = os.environ["PYTHONPATH"].partition(os.pathsep)
    assert rest == "before"
    (found,) = metadata.distributions(path=[first])
    assert (found.name, found.version) == ("manyview", metadata.version("manyview"))
