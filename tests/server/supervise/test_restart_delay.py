"""The delay before a worker that died is started again doubles, up to its limit."""

from manyview_server.supervise.restart_delay import restart_delay_s


def test_the_delay_doubles_with_each_death_up_to_its_bound() -> None:
    assert [restart_delay_s(deaths, 0.5, 6.0) for deaths in (0, 1, 2, 3, 4, 5, 6)] == [0.5, 0.5, 1, 2, 4, 6, 6]


def test_a_worker_that_has_died_thousands_of_times_is_still_started_again() -> None:
    assert {restart_delay_s(deaths, 0.5, 6.0) for deaths in range(10, 3000)} == {6.0}
