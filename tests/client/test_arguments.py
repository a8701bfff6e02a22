"""Arguments that would silently mean the default are refused, and the error names them."""

from collections.abc import Callable
from typing import Any

import pytest

import manyview
from manyview._arguments import duration_s
from manyview.testing import FakeServer

MODEL = "backbones/resnet18"


@pytest.fixture
def job(client: manyview.Client) -> manyview.Job:
    client.upload([b"a"], "pets")
    return client.train("pets", job_id="j")


CALLS: dict[str, tuple[Callable[[manyview.Client], Any], str]] = {
    "a selection's count": (lambda c: c.select("pets", 0), "count must be at least 1, or None for the default, not 0"),
    "a selection's version": (lambda c: c.select("pets", 1, version=0), "version must be at least 1"),
    "a selection's neighbors": (
        lambda c: c.select("pets", 1, model=MODEL, strategy="typicality", num_neighbors=0),
        "num_neighbors must be at least 1",
    ),
    "a selection's limit": (lambda c: c.select("pets", 1, timeout_s=0), "timeout_s must be above 0"),
    "neighbors": (
        lambda c: c.neighbors("pets", keys=["a"], model=MODEL, num_neighbors=0),
        "num_neighbors must be at least 1",
    ),
    "a version of neighbors": (
        lambda c: c.neighbors("pets", keys=["a"], model=MODEL, version=-1),
        "version must be at least 1, or None for the default, not -1",
    ),
    "a limit on neighbors": (
        lambda c: c.neighbors("pets", keys=["a"], model=MODEL, timeout_s=-1),
        "timeout_s must be above 0, or None for the default, not -1",
    ),
    "a version of duplicates": (
        lambda c: c.duplicates("pets", model=MODEL, max_distance=0, version=0),
        "version must be at least 1",
    ),
    "a limit on duplicates": (
        lambda c: c.duplicates("pets", model=MODEL, max_distance=0, timeout_s=float("nan")),
        "timeout_s must be above 0, or None for the default, not nan",
    ),
    "a version of embeddings": (lambda c: c.embed_dataset("pets", MODEL, version=0), "version must be at least 1"),
    "log lines": (lambda c: c.job("j").logs(0), "lines must be from 1 to 10,000, not 0"),
    "many log lines": (lambda c: c.job("j").logs(10_001), "lines must be from 1 to 10,000, not 10001"),
    "a history's rows": (lambda c: c.job("j").history(max_rows=0), "max_rows must be at least 2"),
    "a history's names": (lambda c: c.job("j").history([]), "names must have at least one item"),
    "kinds of events": (lambda c: c.job("j").metrics(kinds=[]), "kinds must have at least one item"),
    "the time to reconnect": (
        lambda c: c.job("j").metrics(reconnect_timeout_s=0),
        "reconnect_timeout_s must be above 0",
    ),
    "a wait": (lambda c: c.job("j").wait(-1), "timeout_s must be at least 0"),
    "statuses": (lambda c: c.images("pets", statuses=[]), "statuses must have at least one item"),
    "an upload's id": (lambda c: c.upload([b"a"], "pets", upload_id=""), "upload_id must not be empty"),
    "a method": (lambda c: c.train("pets", method=""), "method must not be empty"),
    "a job's id": (lambda c: c.train("pets", job_id=""), "job_id must not be empty"),
    "a preview's method": (lambda c: c.preview([b"a"], method=""), "method must not be empty"),
}


@pytest.mark.parametrize("name", CALLS)
def test_zero_or_an_empty_value_is_not_taken_for_the_default(
    client: manyview.Client, job: manyview.Job, name: str
) -> None:
    call, words = CALLS[name]
    with pytest.raises(ValueError, match=words):
        call(client)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"timeout_s": 0}, "timeout_s must be above 0, or None for the default, not 0"),
        ({"timeout_s": 5, "deadlines": manyview.Deadlines()}, "set timeout_s or deadlines, not both"),
        ({"target": ""}, "target must not be empty"),
        ({"token": ""}, "token must not be empty"),
    ],
)
def test_a_client_refuses_options_that_would_have_no_effect(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        manyview.Client(**options)


def test_a_clients_timeout_is_that_of_its_calls(server: FakeServer) -> None:
    with manyview.Client(server.target, timeout_s=5) as client:
        client.server_info()
    deadline_s = server.calls[-1].deadline_s
    assert deadline_s is not None
    assert 3 < deadline_s < 6


@pytest.mark.parametrize(
    ("options", "words"),
    [({"data_dir": ""}, "data_dir must name a folder"), ({"start_timeout_s": 0}, "start_timeout_s must be above 0")],
)
def test_a_local_server_refuses_an_empty_folder_and_no_time(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        manyview.local(**options)


@pytest.mark.parametrize(
    ("value", "seconds"), [(None, 0), (90, 90), (0.5, 0.5), ("90s", 90), ("10m", 600), ("1.5h", 5400), ("2d", 172_800)]
)
def test_a_duration_is_a_number_of_seconds_or_has_a_unit(value: float | str | None, seconds: float) -> None:
    assert duration_s("time_budget", value) == seconds


@pytest.mark.parametrize("value", ["", "10", "m", "10 minutes", "nans", "infh", "-1m", 0, -1, float("nan"), [3]])
def test_anything_else_is_no_duration(value: Any) -> None:
    with pytest.raises(ValueError, match="time_budget must be"):
        duration_s("time_budget", value)
