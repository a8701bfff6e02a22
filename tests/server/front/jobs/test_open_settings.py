"""Settings that a request leaves open are chosen by the device, the images and the time, with a reason."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format, struct_pb2

from manyview.v1 import train_job_service_pb2 as pb
from manyview_server.errors import InvalidArgument, Unavailable
from manyview_server.front.jobs import combinations, timed_planner
from manyview_server.front.jobs.combinations import COMBINATIONS
from manyview_server.front.jobs.job_plans import JobPlan, JobPlanner
from manyview_server.front.jobs.timed_planner import TimedPlanner
from manyview_server.messages.timing import StepTimed
from manyview_server.store.store import Store
from manyview_server.supervise.catalogue.catalogue import Catalogue

BASE = {"batch_size": 32, "evaluation": {"knn_every_epochs": 0}, "precision": "float32"}
"""An epoch of the 320 images has 10 steps."""
Planned = Callable[..., Awaitable[JobPlan]]


@pytest.fixture
def planned(planner: JobPlanner, shirts: Store, torch_catalogue: Catalogue, timer: Any) -> Planned:
    """The plan of a job: planned({"epochs": 3}, time_budget_s=60)."""

    async def plan(config: dict[str, Any] | None = None, **fields: Any) -> JobPlan:
        values = json_format.ParseDict(BASE | (config or {}), struct_pb2.Struct())
        request = pb.CreateTrainJobRequest(
            **{"dataset": "datasets/shirts", "method": "simclr", "config": values, **fields}
        )
        return await TimedPlanner(planner, shirts, torch_catalogue, timer).plan(request, None)

    return plan


def test_the_page_of_methods_lists_the_combinations() -> None:
    page = (Path(__file__).parents[4] / "docs/methods.md").read_text()
    rows = re.findall(
        r"^\| (CPU|GPU) \| `(\w+)`(?: at (half width|a quarter of its width))? \| (\d+) \|$", page, re.MULTILINE
    )
    widths = {"": 1.0, "half width": 0.5, "a quarter of its width": 0.25}
    listed = [({"CPU": "cpu", "GPU": "cuda"}[kind], name, widths[width], int(size)) for kind, name, width, size in rows]
    assert listed == [
        (kind, combination.backbone, combination.width, combination.image_size)
        for kind, combinations in COMBINATIONS.items()
        for combination in combinations
    ]


def chosen(plan: JobPlan) -> tuple[Any, ...]:
    return tuple(plan.settings[name] for name in ("backbone", "backbone_width", "image_size", "epochs"))


@pytest.fixture
def many_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """The 320 images count as many."""
    monkeypatch.setattr(combinations, "SMALL_SET_IMAGES", 319)


@pytest.mark.parametrize(
    ("time_budget_s", "few", "many"),
    [
        (0, ("resnet18", 1, 128, 300), ("resnet18", 1, 128, 300)),  # an hour: 359 epochs of 10 s, but at most 300
        (3600, ("resnet18", 1, 128, 300), ("resnet18", 1, 128, 300)),
        (602, ("resnet18", 1, 128, 60), ("resnet18", 1, 128, 60)),
        (600, ("resnet18", 1, 64, 230), ("resnet18", 1, 128, 59)),  # 59 epochs at 128 pixels are too few of few images
        (301, ("resnet18", 1, 64, 120), ("resnet18", 1, 128, 30)),
        (300, ("resnet18", 1, 64, 110), ("resnet18", 1, 64, 110)),  # 29 are always too few; 2.5 s an epoch at 64
        (120, ("resnet9", 1, 64, 95), ("resnet18", 1, 64, 47)),
        (60, ("resnet9", 0.5, 64, 180), ("resnet9", 1, 64, 47)),
        (30, ("resnet9", 0.5, 64, 92), ("resnet9", 0.5, 64, 92)),
        (10, ("resnet9", 0.25, 64, 110), ("resnet9", 0.25, 64, 110)),
    ],
)
async def test_more_time_means_a_larger_network_and_larger_images(
    planned: Planned,
    time_budget_s: float,
    few: tuple[Any, ...],
    many: tuple[Any, ...],
    request: pytest.FixtureRequest,
) -> None:
    plans = [(await planned(time_budget_s=time_budget_s), few)]
    request.getfixturevalue("many_images")
    plans.append((await planned(time_budget_s=time_budget_s), many))
    for plan, expected in plans:
        assert chosen(plan) == expected
        assert plan.estimate is not None
        assert plan.estimate.total_s <= (time_budget_s or 3600)


async def test_a_slow_device_gets_the_smallest_and_less_than_an_epoch(planned: Planned, timer: Any) -> None:
    timer.step_s = 1_000
    plan = await planned(time_budget_s=60)
    assert chosen(plan) == ("resnet9", 0.25, 64, 1)
    assert plan.settings["max_steps"] == 7  # a step takes 7.8 s
    assert plan.choice.startswith(
        "chosen: backbone=resnet9, backbone_width=0.25, image_size=64, epochs=1, max_steps=7 for 320 images and about "
        "1 min on this CPU, where a step of 32 images takes 7.8 s"
    )


async def test_only_what_is_open_is_chosen(planned: Planned) -> None:
    assert chosen(await planned({"epochs": 50}, time_budget_s=60)) == ("resnet9", 0.5, 64, 50)
    assert chosen(await planned({"image_size": 128}, time_budget_s=60))[2] == 128
    assert chosen(await planned({"backbone": "resnet34", "image_size": 64})) == ("resnet34", 1, 64, 300)
    assert chosen(await planned({"backbone": "resnet9", "backbone_width": 2})) == ("resnet9", 2, 128, 170)


async def test_recipes_follow_the_chosen_size(planned: Planned) -> None:
    blur = [
        (await planned(time_budget_s=time_s)).settings["views"]["pipelines"][0]["blur"]["probability"]
        for time_s in (700, 60)
    ]
    assert blur == [0.5, 0]


async def test_the_choice_has_a_reason_and_stands_before_the_estimate_in_the_log(
    planned: Planned, many_images: None
) -> None:
    plan = await planned(time_budget_s=600)
    assert plan.notes == (
        "chosen: backbone=resnet18, image_size=128, epochs=59 for 320 images and about 10 min on this CPU, where a "
        "step of 32 images takes 1 s",
        "estimated time: about 10 min on this CPU",
    )


async def test_the_choice_for_few_images_says_why_it_is_no_larger_network(planned: Planned) -> None:
    plan = await planned(time_budget_s=60)
    assert plan.choice == (
        "chosen: backbone=resnet9, backbone_width=0.5, image_size=64, epochs=180 for 320 images and about 1 min on "
        "this CPU, where a step of 32 images takes 0.031 s; with so few images, 60 passes or more come before a "
        "larger network"
    )
    assert "passes" not in (await planned({"epochs": 50}, time_budget_s=60)).choice


async def test_explicit_settings_stay_as_they_are_and_have_no_choice(planned: Planned) -> None:
    explicit = {"backbone": "resnet18", "image_size": 224, "epochs": 100}
    plan = await planned(explicit)
    assert (plan.choice, plan.given) == ("", BASE | explicit)
    assert chosen(plan) == ("resnet18", 1, 224, 100)


@pytest.mark.parametrize(
    ("embed_s", "every", "epochs"),
    [
        (0.0, 1, 200),
        (0.0001, 3, 200),  # an epoch takes 0.28 s, and an evaluation of the 320 images 0.032 s
        (0.002, 19, 180),  # an evaluation takes 0.64 s, so a share of 5 % would leave four of them
    ],
)
async def test_evaluations_take_a_small_share_of_a_job_whose_epochs_are_chosen(
    planned: Planned, timer: Any, embed_s: float, every: int, epochs: int
) -> None:
    timer.embed_s = embed_s
    plan = await planned({"evaluation": {}}, dataset="datasets/labelled", time_budget_s=60)
    assert (plan.settings["evaluation"]["knn_every_epochs"], plan.settings["epochs"]) == (every, epochs)
    assert plan.estimate is not None
    assert plan.estimate.total_s <= 60
    told = f"epochs={epochs}, evaluation.knn_every_epochs={every} for 320 images"
    assert (told in plan.choice) == (every > 1)


async def test_evaluations_that_are_given_or_belong_to_given_epochs_stay(planned: Planned, timer: Any) -> None:
    timer.embed_s = 0.0001
    labelled = {"dataset": "datasets/labelled", "time_budget_s": 60}
    for config in ({"evaluation": {"knn_every_epochs": 1}}, {"evaluation": {}, "epochs": 50}):
        plan = await planned(config, **labelled)
        assert plan.settings["evaluation"]["knn_every_epochs"] == 1
        assert "evaluation" not in plan.choice


async def test_images_are_not_enlarged(planned: Planned) -> None:
    plan = await planned(dataset="datasets/icons", config={"batch_size": 4})
    assert plan.settings["image_size"] == 32


async def test_methods_that_take_other_networks_keep_theirs(planned: Planned) -> None:
    plan = await planned(method="mae", time_budget_s=700)
    assert chosen(plan)[:3] == ("vit_tiny", 1, 128)


async def test_steps_that_are_given_end_the_job(planned: Planned) -> None:
    plan = await planned({"max_steps": 200}, time_budget_s=60)
    assert chosen(plan) == ("resnet18", 1, 64, 100)
    assert plan.settings["max_steps"] == 200


async def test_a_job_that_follows_has_its_network_chosen_before_there_are_images(planned: Planned) -> None:
    plan = await planned({"max_steps": 100}, dataset="datasets/none", follow=pb.Follow(min_images=100))
    assert chosen(plan)[:3] == ("resnet18", 1, 128)


async def test_without_a_measurement_the_choice_says_so(
    planned: Planned, timer: Any, request: pytest.FixtureRequest
) -> None:
    timer.failure = Unavailable("DEVICE_BUSY", "the device trains another job now")
    plan = await planned()
    assert chosen(plan) == ("resnet9", 0.5, 64, 100)
    request.getfixturevalue("many_images")
    plan = await planned()
    assert chosen(plan) == ("resnet18", 1, 64, 100)
    assert plan.choice == (
        "chosen: backbone=resnet18, image_size=64, epochs=100 on this CPU, without a measurement: "
        "the device trains another job now"
    )


async def test_a_time_that_could_not_be_planned_for_is_named_in_the_choice(planned: Planned, timer: Any) -> None:
    timer.failure = Unavailable("DEVICE_BUSY", "the device trains another job now")
    plan = await planned(time_budget_s=600)
    assert plan.choice.endswith("the device trains another job now; it may take much longer than about 10 min")


async def test_a_first_measurement_that_takes_too_long_is_tried_again(
    planned: Planned, timer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timed_planner, "CHOOSE_WAIT_S", 0.05)
    measure = timer.time

    async def first_slow(settings: dict[str, Any], **others: Any) -> StepTimed:
        timer.delay_s = 0.0 if timer.asked else 60.0
        found: StepTimed = await measure(settings, **others)
        return found

    monkeypatch.setattr(timer, "time", first_slow)
    plan = await planned(time_budget_s=700)
    assert "where a step of 32 images takes" in plan.choice
    assert [asked["backbone_width"] for asked in timer.asked[:2]] == [0.25, 0.25]


async def test_few_combinations_are_measured(planned: Planned, timer: Any) -> None:
    await planned(time_budget_s=700)
    assert [(asked["backbone_width"], asked["image_size"]) for asked in timer.asked[:2]] == [(0.25, 64), (1, 128)]


async def test_warm_up_fits_into_the_chosen_epochs(planned: Planned, timer: Any) -> None:
    timer.step_s = 100
    plan = await planned({"optimizer": {"warmup_epochs": 10}}, time_budget_s=60)
    assert plan.settings["epochs"] == 10


@pytest.mark.parametrize(
    ("config", "time_budget_s", "message"),
    [
        (
            {"backbone": "resnet18", "image_size": 64, "epochs": 3},
            60,
            "has no effect, because backbone, image_size and",
        ),
        ({"backbone": "resnet18", "image_size": 64, "max_steps": 3}, 60, "has no effect"),
        ({}, 9, "must be at least 10 seconds"),
        ({}, -1, "must be at least 10 seconds"),
        ({}, float("nan"), "must be at least 10 seconds"),
        ({}, 1e9, "at most 2,592,000"),
    ],
)
async def test_a_time_without_effect_is_refused(
    planned: Planned, config: dict[str, Any], time_budget_s: float, message: str
) -> None:
    with pytest.raises(InvalidArgument, match=message) as caught:
        await planned(config, time_budget_s=time_budget_s)
    assert caught.value.violations[0].field == "time_budget_s"
