"""The members that a caller chooses."""

import pytest

from manyview._uploads.shards.member_choice import MemberChoice


@pytest.mark.parametrize("value", ["", " ", "jpg;", ";", 3])
def test_a_choice_that_names_nothing_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="image must name members of a shard, such as 'jpg' or 'jpg;png', not"):
        MemberChoice(image=value)


def test_a_choice_is_part_of_the_identity_of_an_upload() -> None:
    assert MemberChoice().identity == ()
    assert MemberChoice("jpg", "cls").identity == ("image=jpg", "label=cls")
