"""Names, ids and page tokens: what is taken, and that the field is named where it is not."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyview_server.errors import InvalidArgument
from manyview_server.front.rpc import page_tokens
from manyview_server.front.rpc import resource_names as names
from manyview_server.front.rpc.resource_names import ModelName
from manyview_server.learn.backbones import LIBRARIES


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("trainJobs/a-1", ModelName(train_job_id="a-1")),
        ("trainJobs/a/checkpoints/12", ModelName(train_job_id="a", step=12)),
        ("trainJobs/a/checkpoints/0", ModelName(train_job_id="a", step=0)),
        ("backbones/resnet18", ModelName(backbone="resnet18")),
        ("backbones/vit_small_patch16_224.dino", ModelName(backbone="vit_small_patch16_224.dino")),
        ("backbones/timm/resnet18", ModelName(backbone="timm/resnet18")),
        ("backbones/torchvision/resnet18", ModelName(backbone="torchvision/resnet18")),
    ],
)
def test_models_have_three_kinds_of_names(name: str, expected: ModelName) -> None:
    assert names.model_name(name, "model") == expected


NO_MODELS = """
a trainJobs trainJobs/ trainJobs/A trainJobs/a/checkpoints trainJobs/a/checkpoints/-1 trainJobs/a/checkpoints/x
trainJobs/a/steps/1 backbones/ backbones/../x backbones/a/b backbones/timm/a/b backbones/timm/
backbones/timm/.. x/a trainJobs/a/checkpoints/² backbones/.hidden
trainJobs/a/checkpoints/1/
"""


@pytest.mark.parametrize("name", ["", "trainJobs/a\n", *NO_MODELS.split()])
def test_other_names_are_refused_by_their_field(name: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        names.model_name(name, "header.model")
    assert caught.value.violations[0].field == "header.model"


@pytest.mark.parametrize(
    ("wanted", "hint"),
    [
        ("My Photos!", "; for example 'my-photos'"),
        ("2024/05", "; for example '2024-05'"),
        ("-a_b", "; for example 'a-b'"),
        ("x" * 70, f"; for example '{'x' * 63}'"),
        ("!!", ", _ and -"),
    ],
)
def test_a_bad_id_is_answered_with_a_similar_good_one(wanted: str, hint: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        names.dataset_id(f"datasets/{wanted}")
    assert caught.value.message.startswith("name: '")
    assert "is not a valid id; an id has 1 to 63 characters" in caught.value.message
    assert caught.value.message.endswith(hint)


def test_an_empty_name_is_no_model() -> None:
    with pytest.raises(InvalidArgument, match="model: names no model"):
        names.model_name("", "model")


@given(st.text(max_size=200))
def test_an_error_quotes_little_of_a_hostile_name(text: str) -> None:
    try:
        names.dataset_id(text)
    except InvalidArgument as error:
        assert "\n" not in error.message.replace("\\n", "")  # noqa: PT017
        assert len(error.message) < 1500  # noqa: PT017


ANYTHING = re.compile(r"(?s:.*)")


@given(st.text(min_size=1, max_size=100), st.text(max_size=30))
def test_a_page_token_comes_back_in_its_own_query_alone(inner: str, scope: str) -> None:
    token = page_tokens.encode_page_token(scope, inner)
    assert page_tokens.decode_page_token(scope, token, ANYTHING) == inner
    with pytest.raises(InvalidArgument):
        page_tokens.decode_page_token(scope + "x", token, ANYTHING)
    with pytest.raises(InvalidArgument):
        page_tokens.decode_page_token(scope, token[:-4] + "AAA=", ANYTHING)


def test_no_token_means_the_first_page_and_the_last_has_none() -> None:
    assert page_tokens.encode_page_token("s", "") == page_tokens.decode_page_token("s", "", ANYTHING) == ""


@given(st.text(min_size=1, max_size=50))
def test_arbitrary_tokens_are_refused(token: str) -> None:
    with pytest.raises(InvalidArgument):
        page_tokens.decode_page_token("s", token, ANYTHING)


@pytest.mark.parametrize("inner", ["abc", "-1", "1" * 19, "1" * 5000, "1,2", "1\n", "\N{ARABIC-INDIC DIGIT ONE}"])
def test_a_token_that_was_made_by_hand_is_refused_unless_it_has_the_form_of_one(inner: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        page_tokens.decode_page_token("s", page_tokens.encode_page_token("s", inner), page_tokens.POSITION)
    assert caught.value.violations[0].field == "page_token"


def test_page_sizes_are_bounded() -> None:
    assert page_tokens.page_size(0, default=100, most=1000) == 100
    assert page_tokens.page_size(1000, default=100, most=1000) == 1000
    for value in (-1, 1001):
        with pytest.raises(InvalidArgument):
            page_tokens.page_size(value, default=100, most=1000)


def test_request_ids_are_uuids_of_one_case() -> None:
    assert names.request_id("") == ""
    assert names.request_id("0FD1B3B2-8F0B-4C3B-9F0C-0123456789AB") == "0fd1b3b2-8f0b-4c3b-9f0c-0123456789ab"
    with pytest.raises(InvalidArgument):
        names.request_id("0fd1b3b2")


def test_the_libraries_of_backbones_are_those_that_can_be_built() -> None:
    for library in LIBRARIES:
        assert names.model_name(f"backbones/{library}/a", "model").backbone == f"{library}/a"
