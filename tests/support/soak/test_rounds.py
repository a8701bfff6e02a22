from __future__ import annotations

import pytest

from support.soak.rounds import rounds, soaking


def test_rounds_are_the_same_few_seeds_unless_more_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MANYVIEW_SOAK", raising=False)
    assert list(rounds(2)) == [0, 1]
    assert not soaking()
    monkeypatch.setenv("MANYVIEW_SOAK", "5")
    assert list(rounds(2)) == [0, 1, 2, 3, 4]
    assert soaking()


@pytest.mark.parametrize("asked", ["0", "-1", "many"])
def test_what_is_no_number_of_rounds_is_refused(monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    monkeypatch.setenv("MANYVIEW_SOAK", asked)
    with pytest.raises(ValueError, match="above 0, not"):
        rounds(2)
