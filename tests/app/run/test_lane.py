"""A case's lane: which thread executes which stage, and that neither waits for ever."""

import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor

import pytest

from metseg.run.lane import Lane
from metseg.run.pipeline import STAGES

HERE = STAGES[2:4]


@pytest.fixture
def pool():
    with ThreadPoolExecutor(2) as executor:
        yield executor


def go(lane, stages=STAGES, step=threading.get_ident):
    try:
        return [lane.run(stage, step) for stage in stages]
    finally:
        lane.leave()


def test_each_stage_runs_in_its_thread_and_is_timed(pool):
    lane = Lane(HERE)
    found = pool.submit(go, lane)
    lane.serve()
    threads = found.result(timeout=10)
    mine = threading.get_ident()
    assert [thread == mine for thread in threads] == [stage in HERE for stage in STAGES]
    assert tuple(lane.seconds) == STAGES
    assert all(seconds >= 0 for seconds in lane.seconds.values())


def test_an_error_is_raised_where_the_case_asked_and_ends_the_serving(pool):
    def fail():
        raise ArithmeticError("a bug")

    lane = Lane(HERE)
    found = pool.submit(go, lane, step=fail, stages=["predict"])
    lane.serve()
    with pytest.raises(ArithmeticError, match="a bug"):
        found.result(timeout=10)


def test_a_case_begins_when_the_one_before_it_has_arrived(pool):
    first, begun = Lane(HERE), threading.Event()
    second = Lane(HERE, ahead=first)
    found = pool.submit(second.run, "read", begun.set)
    assert not begun.wait(0.2)
    first.leave()
    found.result(timeout=10)
    assert begun.is_set()


@pytest.mark.parametrize("waits", [True, False], ids=["while it waits", "before it asks"])
def test_a_lane_that_is_closed_gives_its_case_up(pool, waits):
    lane = Lane(HERE)
    if not waits:
        lane.close()
    found = pool.submit(lane.run, "predict", threading.get_ident)
    if waits:
        assert lane.arrived.wait(10)
        lane.close()
    with pytest.raises(CancelledError):
        found.result(timeout=10)


def test_serving_ends_with_the_last_stage_of_this_thread(pool):
    lane, release = Lane(HERE), threading.Event()

    def way():
        for stage in HERE:
            lane.run(stage, threading.get_ident)
        lane.run("restore", lambda: release.wait(10))

    found = pool.submit(way)
    lane.serve()
    release.set()
    found.result(timeout=10)
