"""Job configurations that are wrong, field by field: each is refused with its name, its value and what is allowed.

The fields come from the schemas that the server itself publishes, so a new field is covered when it appears.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf import struct_pb2

import manyview
from manyview.v1 import train_job_service_pb2 as jobs_pb
from manyview.v1 import train_job_service_pb2_grpc as jobs_grpc
from support.clients.wire import Wire, assert_speaks_of_the_request_alone, refused
from support.service.harness import SMALL_JOB, jpeg, write_photos

BOUNDS = {"minimum": "at least", "maximum": "at most", "exclusiveMinimum": "above", "exclusiveMaximum": "below"}
WRONG_TYPES = {
    "integer": (1.5, "seven", True),
    "number": ("seven", False),
    "boolean": (1, "yes"),
    "string": (3,),
    "array": (0.5, "0.5"),
}
NOUNS = {
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "string": "one of",
    "array": "a list",
}


@pytest.fixture(scope="module")
def dataset(client: manyview.Client, tmp_path_factory: pytest.TempPathFactory) -> manyview.Dataset:
    folder = tmp_path_factory.mktemp("few")
    write_photos(folder, 24, seed=1)
    return client.upload(folder, dataset="few-of-config")


@pytest.fixture(scope="module")
def schemas(client: manyview.Client) -> dict[str, Any]:
    return {method.name: method.config_schema for method in client.methods().methods}


def leaves(schema: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(path, schema) of each field that is neither an object nor a list of them."""
    for name, field in schema["properties"].items():
        if "properties" in field:
            yield from leaves(field, (*path, name))
        elif "properties" not in field.get("items", {}):
            yield (*path, name), field


def wrong_values(field: Any) -> Iterator[tuple[Any, str, str]]:
    """(value, where in it, words of what is allowed) for everything that can be wrong with a field."""
    types = [field["type"]] if isinstance(field["type"], str) else field["type"]
    kind = next(name for name in types if name != "null")
    if "enum" in field:
        yield "none-of-these", "", f"one of {', '.join(map(repr, field['enum']))}"
    for part in field.get("anyOf", [field]):
        if "pattern" in part:
            yield "none of these", "", part["x-words"]
    for value in (*WRONG_TYPES[kind], *([] if "null" in types else [None])):
        yield value, "", field.get("x-words", NOUNS[kind])
    yield from ((value, "", words) for value, words in out_of_bounds(field, kind))
    if kind == "array":
        good = field["default"]
        yield good[:-1], "", f"a list of exactly {field['minItems']}"
        yield [*good, good[0]], "", f"a list of exactly {field['maxItems']}"
        for value, words in out_of_bounds(field["items"], "number"):
            yield [good[0], value, *good[2:]], "[1]", words


def out_of_bounds(field: Any, kind: str) -> Iterator[tuple[float, str]]:
    """(value, words) for each bound."""
    step = 1 if kind == "integer" else 0.001
    for name, words in BOUNDS.items():
        if name in field:
            outwards = {"minimum": -step, "maximum": step}.get(name, 0)
            yield field[name] + outwards, f"{words} {field[name]:,}"


def nested(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """{"a": {"b": value}} for the path a, b."""
    return {path[0]: nested(path[1:], value) if path[1:] else value}


def shown(value: Any) -> str:
    """A value as the server writes it."""
    if isinstance(value, str):
        return repr(value)
    return json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value)


def test_every_field_refuses_every_value_outside_of_its_schema(
    client: manyview.Client, dataset: manyview.Dataset, schemas: dict[str, Any]
) -> None:
    num_tried = 0
    for method, schema in schemas.items():
        for path, field in leaves(schema):
            for value, where, words in wrong_values(field):
                num_tried += 1
                config = nested(path, value)
                with refused(manyview.InvalidArgument, "FIELD_INVALID") as caught:
                    client.resolve_config(dataset, method, config=config)
                (violation,) = caught.value.violations
                assert violation.field == f"config.{'.'.join(path)}{where}"
                assert words in violation.description, config
                assert f"(got {shown(value[1] if where else value)})" in violation.description, config
                assert violation.description in str(caught.value)
    assert {"simclr", "moco", "dino", "swav"} <= set(schemas)
    assert num_tried > 300


def test_a_wrong_field_creates_no_job(client: manyview.Client, dataset: manyview.Dataset) -> None:
    with refused(manyview.InvalidArgument, "FIELD_INVALID", "config.batch_size"):
        client.train(dataset, config={"batch_size": 1}, job_id="never-created")
    with refused(manyview.NotFound, "TRAIN_JOB_NOT_FOUND", "never-created"):
        client.job("never-created")


def test_all_that_is_wrong_is_told_at_once(client: manyview.Client, dataset: manyview.Dataset) -> None:
    config = {"batch_size": 1, "views": {"blur": {"probability": 1.5}}, "temprature": 1, "optimizer": {"name": "adam"}}
    with refused(manyview.InvalidArgument, "FIELD_INVALID", "got 1)", "got 1.5)", "'sgd'") as caught:
        client.resolve_config(dataset, "simclr", epochs=0, config=config)
    assert [violation.field for violation in caught.value.violations] == [
        "config.batch_size",
        "config.epochs",
        "config.optimizer.name",
        "config.temprature",
        "config.views.blur.probability",
    ]


@pytest.mark.parametrize(
    ("config", "field", "hint"),
    [
        ({"temprature": 0.1}, "config.temprature", "did you mean 'temperature'?"),
        (
            {"views": {"crop": {"scale_mim": 0.1}}},
            "config.views.crop.scale_mim",
            "did you mean 'views.crop.scale_min'?",
        ),
        ({"knn_k": 5}, "config.knn_k", "did you mean 'evaluation.knn_k'?"),
        ({"zzz": 1}, "config.zzz", "known: method, backbone"),
        ({"optimizer": "sgd"}, "config.optimizer", "must be an object (got 'sgd')"),
        ({"backbone": "resnet19"}, "config.backbone", "'resnet9', 'resnet18', 'resnet34', 'resnet50'"),
        ({"method": "moco"}, "config.method", "'simclr'"),
    ],
)
def test_an_unknown_field_or_choice_is_told_with_what_is_known(
    client: manyview.Client, dataset: manyview.Dataset, config: dict[str, Any], field: str, hint: str
) -> None:
    with refused(manyview.InvalidArgument, "FIELD_INVALID", hint) as caught:
        client.resolve_config(dataset, "simclr", config=config)
    assert [violation.field for violation in caught.value.violations] == [field]


@pytest.mark.parametrize(
    ("config", "field", "description"),
    [
        (
            {"optimizer": {"name": "adamw", "momentum": 0.5}},
            "config.optimizer.momentum",
            "has no effect while optimizer.name is 'adamw' (got 0.5)",
        ),
        (
            {"memory_bank_size": [64, 99]},
            "config.memory_bank_size",
            "the second number must be projection_dim, which is 128 (got [64, 99])",
        ),
    ],
)
def test_rules_between_fields_are_told_before_a_job_exists(
    client: manyview.Client, dataset: manyview.Dataset, config: dict[str, Any], field: str, description: str
) -> None:
    with refused(manyview.InvalidArgument, "FIELD_INVALID") as caught:
        client.resolve_config(dataset, "simclr", config=config)
    (violation,) = caught.value.violations
    assert (violation.field, violation.description) == (field, description)


def test_a_bank_with_its_width_is_resolved_to_its_size(client: manyview.Client, dataset: manyview.Dataset) -> None:
    config = {"memory_bank_size": [64, 32], "projection_dim": 32}
    assert client.resolve_config(dataset, "simclr", config=config)["memory_bank_size"] == 64


def test_an_unknown_method_is_told_with_the_known_ones(client: manyview.Client, dataset: manyview.Dataset) -> None:
    with refused(manyview.InvalidArgument, "FIELD_INVALID", "'zzz' is not known", "simclr", "moco") as caught:
        client.train(dataset, "zzz")
    assert [violation.field for violation in caught.value.violations] == ["method"]
    with refused(manyview.InvalidArgument, "FIELD_INVALID", "did you mean 'simclr'?"):
        client.train(dataset, "simclr2")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_is_refused(client: manyview.Client, wire: Wire, value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        client.resolve_config("few-of-config", config={"temperature": value})
    config = struct_pb2.Struct(fields={"temperature": struct_pb2.Value(number_value=value)})
    request = jobs_pb.CreateTrainJobRequest(dataset="datasets/few-of-config", method="simclr", config=config)
    with refused(manyview.InvalidArgument, "FIELD_INVALID", "config.temperature", "finite"):
        wire.call(jobs_grpc.TrainJobServiceStub, "CreateTrainJob", request)


def test_hundreds_of_violations_still_fit_an_answer(client: manyview.Client, dataset: manyview.Dataset) -> None:
    config = {f"unknown_{number}": number for number in range(250)}
    with refused(manyview.InvalidArgument, "FIELD_INVALID", "unknown_0") as caught:
        client.resolve_config(dataset, config=config)
    assert caught.value.violations[-1].description.endswith("more violations")


def test_fields_that_contradict_one_another_or_would_have_no_effect_are_refused(
    client: manyview.Client, dataset: manyview.Dataset
) -> None:
    views = {"crop": {"scale_min": 0.9, "scale_max": 0.5}, "blur": {"probability": 0, "sigma_max": 1.5}}
    with refused(
        manyview.InvalidArgument,
        "FIELD_INVALID",
        "config.views.crop.scale_min: must be at most views.crop.scale_max, which is 0.5 (got 0.9)",
        "config.views.blur.sigma_max: has no effect while views.blur.probability is 0 (got 1.5)",
    ):
        client.train(dataset, "simclr", config={"views": views})


def test_recipes_are_resolved_in_full_and_refused_where_they_are_wrong(
    client: manyview.Client, dataset: manyview.Dataset
) -> None:
    views = {"preset": "byol", "blur": {"sigma_max": 1.5}, "pipelines": {"1": {"solarize": {"probability": 0.5}}}}
    config = client.resolve_config(dataset, "simclr", config={"views": views})
    first, second = config["views"]["pipelines"]
    assert (first["blur"]["probability"], second["blur"]["probability"]) == (1.0, 0.1)
    assert (first["blur"]["sigma_max"], second["blur"]["sigma_max"]) == (1.5, 1.5)
    assert (first["solarize"]["probability"], second["solarize"]["probability"]) == (0.0, 0.5)
    assert set(config["views"]) == {"pipelines", "normalize"}
    assert client.resolve_config(dataset, "simclr", config=config) == config

    views = {"preset": "bylo", "blurr": {}, "pipelines": {"4": {}}}
    with refused(manyview.InvalidArgument, "FIELD_INVALID", "'byol'", "did you mean 'views.blur'?", "0 to 0") as caught:
        client.train(dataset, "simclr", config={"views": views})
    fields = [violation.field for violation in caught.value.violations]
    assert fields == ["config.views.blurr", "config.views.pipelines.4", "config.views.preset"]


def test_views_that_the_method_does_not_take_are_refused(client: manyview.Client, dataset: manyview.Dataset) -> None:
    config: dict[str, Any] = {
        "optimizer": {"warmup_epochs": 7},
        "views": {"preset": "mae", "color_jitter": {"hue": 0.5, "strength": 2}},
    }
    config["views"]["color_jitter"]["probability"] = 0.5
    with refused(
        manyview.InvalidArgument,
        "FIELD_INVALID",
        "config.views.pipelines: simclr takes 2 views of the whole image_size, and the pipelines make 1",
        "config.views.pipelines[0].color_jitter.hue: times strength, which is 2, must be at most 0.5",
        "config.optimizer.warmup_epochs: must be at most epochs, which is 3 (got 7)",
    ):
        client.train(dataset, "simclr", epochs=3, config=config)


def test_a_batch_larger_than_the_data_set_is_refused(client: manyview.Client, dataset: manyview.Dataset) -> None:
    with refused(manyview.InvalidArgument, "FIELD_INVALID", "config.batch_size", "at most 24", "got 64"):
        client.train(dataset, "simclr", epochs=1, config=SMALL_JOB | {"batch_size": 64})


def test_a_data_set_without_a_readable_image_fails_the_job_with_the_numbers(client: manyview.Client) -> None:
    """Only decoding shows that an image ends early."""
    *photos, third, fourth = (jpeg(64, seed) for seed in range(1, 5))
    ends_early = [image[: len(image) // 3] for image in (third, fourth)]
    broken = client.upload(ends_early, dataset="thirds")
    job = client.train(broken, "simclr", epochs=1, config=SMALL_JOB | {"batch_size": 2})
    with pytest.raises(manyview.TrainJobFailed) as caught:
        job.wait(timeout_s=40)
    assert caught.value.reason == "DATASET_UNREADABLE"
    assert "none of the 2 images of an epoch can be read: DECODE_FAILED; so far, 0 images" in str(caught.value)
    assert caught.value.hint == "List the data set's UNREADABLE images; upload others."
    assert_speaks_of_the_request_alone(str(caught.value))
    failure = job.refresh().failure
    assert failure is not None
    assert failure.hint == caught.value.hint

    client.upload(photos, dataset="thirds")  # batches of the others repeat theirs
    job = client.train("thirds", "simclr", epochs=1, config=SMALL_JOB | {"batch_size": 2})
    assert job.wait(timeout_s=40).state == "SUCCEEDED"
