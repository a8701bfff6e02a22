"""A backbone, a transform and a method of installed packages, on a server that also has broken ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

import manyview
from manyview._results.view_captions import steps
from support.service import plugins
from support.service.harness import SMALL_JOB, ServerProcess, write_photos

pytestmark = pytest.mark.timeout(180)  # several processes that load torch, one after the other

JOB = {name: value for name, value in SMALL_JOB.items() if name != "memory_bank_size"}
BRIEF = SMALL_JOB | {"max_steps": 2, "evaluation": {"knn_every_epochs": 0}}
ERASING = {"custom": {"random_erasing": {"probability": 0.5, "area_min": 0.2, "gray": 0}}}
BROKEN = """[manyview.backbones]
no_module = nowhere:Nothing
talks_and_leaves = talking:Nothing
resnet18 = talking:Nothing
"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples as an installer leaves them, a transform that cannot be imported, and backbones that do not work."""
    target = tmp_path_factory.mktemp("packages")
    plugins.install_examples(("plugin_backbone", "plugin_transform", "plugin_method"), target)
    plugins.install(target, "broken", "import no_such_module  # a secret")
    information = target / "broken-0.1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 0.1\n")
    (information / "entry_points.txt").write_text(BROKEN)
    (target / "talking.py").write_text("print('hello')\nraise SystemExit('another secret')\n")
    return target


@pytest.fixture(scope="module")
def plugged(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(packages), os.environ.get("PYTHONPATH", "")])))
        server = ServerProcess(tmp_path_factory.mktemp("server") / "data", one_core=True)
        server.start()
        yield server
        assert server.stop() == 0


@pytest.fixture(scope="module")
def client(plugged: ServerProcess) -> Iterator[manyview.Client]:
    with plugged.client() as connected:
        yield connected


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_photos(tmp_path_factory.mktemp("photos"), 48, seed=3)


@pytest.fixture(scope="module")
def dataset(client: manyview.Client, files: list[Path]) -> manyview.Dataset:
    return client.upload(files[0].parent.parent, dataset="photos")


def test_they_are_listed_with_their_parameters_and_broken_ones_are_told(
    plugged: ServerProcess, client: manyview.Client
) -> None:
    found = client.methods()
    methods = {method.name: method for method in found.methods}
    assert methods["rotation_prediction"].title == "RotNet"
    assert "label_smoothing" in methods["rotation_prediction"].config_schema["properties"]
    for method in methods.values():
        custom = method.config_schema["properties"]["views"]["properties"]["custom"]["properties"]
        assert list(custom) == ["random_erasing"]
        assert custom["random_erasing"]["properties"]["ratio_max"]["default"] == 3.3
    listed = {backbone.name: backbone for backbone in found.backbones}
    assert (listed["conv_mixer"].feature_dim, listed["conv_mixer"].num_parameters) == (256, 626_176)
    assert listed["resnet18"].feature_dim == 512, "our own stays"
    problems = {(one.group, one.name, one.package): one.problem for one in found.plugin_problems}
    assert problems == {
        ("manyview.transforms", "broken", "broken_plugin 1.0"): "it cannot be loaded (ModuleNotFoundError)",
        ("manyview.backbones", "no_module", "broken 0.1"): "it cannot be loaded (ModuleNotFoundError)",
        ("manyview.backbones", "talks_and_leaves", "broken 0.1"): "it cannot be loaded (SystemExit)",
        ("manyview.backbones", "resnet18", "broken 0.1"): "it cannot be loaded (SystemExit)",
    }
    log = plugged.log.read_text()
    assert "plugin 'broken' of broken_plugin 1.0 (manyview.transforms) is left out: it cannot be loaded" in log
    assert "no_such_module" in log
    assert "plugin 'no_module' of broken 0.1 (manyview.backbones) is left out" in log
    assert "another secret" in log, "the whole story is for the operator"


def test_the_backbone_is_trained_and_embeds(
    client: manyview.Client, dataset: manyview.Dataset, files: list[Path], tmp_path: Path
) -> None:
    config = BRIEF | {"backbone": "conv_mixer", "backbone_width": 0.0625}
    job = client.train(dataset, "simclr", epochs=1, config=config)
    assert job.wait(timeout_s=50).progress.step == 2
    assert job.info.config["patch_size"] == 1
    assert any(line.text.startswith("backbone conv_mixer, patch_size 1: 16 features") for line in job.logs())
    rows = client.embed(files, model=job).array
    assert rows.shape == (48, 16)
    assert np.isfinite(rows).all()
    assert "stem.0.weight" in _exported(job, tmp_path)


def test_a_job_with_a_broken_plugin_fails_and_says_why(client: manyview.Client, dataset: manyview.Dataset) -> None:
    job = client.train(dataset, "simclr", epochs=1, config=BRIEF | {"backbone": "no_module", "backbone_width": 1.0})
    with pytest.raises(manyview.TrainJobFailed, match=r"plugin 'no_module' of broken 0\.1 .* cannot be loaded"):
        job.wait(timeout_s=50)
    assert job.info.failure is not None
    assert job.info.failure.reason == "PLUGIN_FAILED"


def test_the_transform_is_resolved_previewed_and_trained_with(
    client: manyview.Client, dataset: manyview.Dataset, files: list[Path]
) -> None:
    config = {**JOB, "views": ERASING, "seed": 3}
    resolved = client.resolve_config(dataset, "simclr", config=config)
    (pipeline,) = resolved["views"]["pipelines"]
    whole = {"probability": 0.5, "area_min": 0.2, "area_max": 0.4, "ratio_max": 3.3, "gray": 0}
    assert pipeline["custom"] == {"random_erasing": whole}
    assert client.resolve_config(dataset, "simclr", config=JOB)["views"]["pipelines"][0]["custom"] == {}
    job = client.train(dataset, "simclr", epochs=2, config=config)
    assert job.wait(timeout_s=50).state == "SUCCEEDED"
    listed = list(client.images(dataset))[:8]
    with_it = client.preview(listed, job=job)
    without = client.preview(listed, config={**JOB, "seed": 3, "decode_size": with_it.decode_size}, dataset=dataset)
    applied = 0
    for changed, plain, done in zip(
        sum(with_it.views, ()), sum(without.views, ()), sum(with_it.parameters, ()), strict=True
    ):
        differs = (changed != plain).any(axis=2)
        assert differs.any() == ("custom" in done)
        assert (changed[differs] == 0).all(), "black where it differs, and nowhere else other"
        applied += "custom" in done
    assert 0 < applied < 16
    assert any("random_erasing" in step for done in sum(with_it.parameters, ()) for step in steps(done))


def test_the_method_is_trained_by_name_embeds_and_goes_on(
    client: manyview.Client, dataset: manyview.Dataset, files: list[Path]
) -> None:
    config = {name: value for name, value in JOB.items() if name != "evaluation"}
    job = client.train(dataset, "rotation_prediction", epochs=3, config={**config, "label_smoothing": 0.1})
    job.wait(timeout_s=50)
    assert job.info.config["method"] == "rotation_prediction"
    losses = [event["loss"] for event in job.metrics() if event.kind == "scalars" and "loss" in event.values]
    assert losses
    assert np.isfinite(losses).all()
    rows = client.embed(files[:5], model=job)
    assert rows.array.shape == (5, 64)
    assert np.isfinite(rows.array).all()
    more = client.train(continue_from=job, epochs=4)
    assert more.wait(timeout_s=50).progress.epoch == 4
    with pytest.raises(manyview.FailedPrecondition, match="no projection head"):
        client.embed(files[:1], model=job, output="projection")


@pytest.mark.parametrize(
    ("method", "config", "text"),
    [
        ("rotation_predicton", {}, "did you mean 'rotation_prediction'"),
        ("rotation_prediction", {"label_smoothing": 1}, "at most 0.9"),
        ("rotation_prediction", {"views": {"pipelines": [{"count": 3}]}}, "takes 1 to 2 views"),
        ("simclr", {"views": {"custom": {"random_erasing": {"probability": 2}}}}, "at most 1"),
        ("simclr", {"views": {"custom": {"random_erasing": {"gray": 1}}}}, "has no effect while"),
        ("simclr", {"views": {"custom": {"random_erase": {"gray": 1}}}}, "did you mean 'random_erasing'"),
        ("simclr", {"views": {"custom": {"broken": {"probability": 1}}}}, "is not an installed plugin"),
    ],
)
def test_what_is_wrong_with_their_settings_is_told(
    client: manyview.Client, dataset: manyview.Dataset, method: str, config: dict[str, object], text: str
) -> None:
    with pytest.raises(manyview.InvalidArgument) as caught:
        client.train(dataset, method, config=config)
    assert text in str(caught.value)


@pytest.mark.long
def test_a_plugin_that_kills_whoever_imports_it_stops_no_server(
    new_server: Callable[..., ServerProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    plugins.install(site, "deadly", "import ctypes\nctypes.string_at(0)")
    monkeypatch.setenv("PYTHONPATH", str(site))
    server = new_server("--fork-workers", "off")
    server.catalogue = None
    server.start()
    with server.client() as client:
        assert "simclr" in {method.name for method in client.methods().methods}
    assert "describing the plugins of deadly_plugin failed, so all plugins are left out" in server.log.read_text()


def _exported(job: manyview.Job, tmp_path: Path) -> set[str]:
    with safe_open(job.export(tmp_path / "weights.safetensors"), "pt") as file:
        return set(file.keys())
