"""A backbone of an installed package, on a server that also has a broken one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

import manyview
from support.service import plugins
from support.service.harness import SMALL_JOB, ServerProcess, write_photos

JOB = SMALL_JOB | {"max_steps": 2, "evaluation": {"knn_every_epochs": 0}}
BROKEN = """[manyview.backbones]
no_module = nowhere:Nothing
talks_and_leaves = talking:Nothing
resnet18 = talking:Nothing
"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example as an installer leaves it, and a package that registers what does not work."""
    target = tmp_path_factory.mktemp("packages")
    plugins.install_example("plugin_backbone", target)
    information = target / "broken-0.1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 0.1\n")
    (information / "entry_points.txt").write_text(BROKEN)
    (target / "talking.py").write_text("print('hello')\nraise SystemExit('a secret')\n")
    return target


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos")
    write_photos(path, 32, seed=3)
    return path


@pytest.fixture(scope="module")
def dataset(client: manyview.Client, folder: Path) -> manyview.Dataset:
    return client.upload(folder, dataset="photos")


def test_a_plugin_is_listed_and_broken_ones_are_told(plugged: ServerProcess, client: manyview.Client) -> None:
    found = client.methods()
    listed = {backbone.name: backbone for backbone in found.backbones}
    assert (listed["conv_mixer"].feature_dim, listed["conv_mixer"].num_parameters) == (256, 626_176)
    assert listed["resnet18"].feature_dim == 512, "our own stays"
    problems = {(plugin.name, plugin.package): plugin.problem for plugin in found.plugin_problems}
    assert problems == {
        ("no_module", "broken 0.1"): "it cannot be loaded (ModuleNotFoundError)",
        ("talks_and_leaves", "broken 0.1"): "it cannot be loaded (SystemExit)",
        ("resnet18", "broken 0.1"): "it cannot be loaded (SystemExit)",
    }
    log = plugged.log.read_text()
    assert "plugin 'no_module' of broken 0.1 (manyview.backbones) is left out" in log
    assert "a secret" in log, "the whole story is for the operator"


def test_a_plugin_is_trained_and_embeds(
    client: manyview.Client, dataset: manyview.Dataset, folder: Path, tmp_path: Path
) -> None:
    config = JOB | {"backbone": "conv_mixer", "backbone_width": 0.0625}
    job = client.train(dataset, "simclr", epochs=1, config=config)
    assert job.wait(timeout_s=50).progress.step == 2
    assert job.info.config["patch_size"] == 1
    assert any(line.text.startswith("backbone conv_mixer, patch_size 1: 16 features") for line in job.logs())
    rows = client.embed(folder, model=job).array
    assert rows.shape == (32, 16)
    assert np.isfinite(rows).all()
    assert "stem.0.weight" in _exported(job, tmp_path)


def test_a_job_with_a_broken_plugin_fails_and_says_why(client: manyview.Client, dataset: manyview.Dataset) -> None:
    job = client.train(dataset, "simclr", epochs=1, config=JOB | {"backbone": "no_module", "backbone_width": 1.0})
    with pytest.raises(manyview.TrainJobFailed, match=r"plugin 'no_module' of broken 0\.1 .* cannot be loaded"):
        job.wait(timeout_s=50)
    assert job.info.failure is not None
    assert job.info.failure.reason == "PLUGIN_FAILED"


def _exported(job: manyview.Job, tmp_path: Path) -> set[str]:
    with safe_open(job.export(tmp_path / "weights.safetensors"), "pt") as file:
        return set(file.keys())
