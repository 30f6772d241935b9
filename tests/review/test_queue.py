"""The queue behind the page: who gets which cell, what is stored, and what a load does meanwhile."""

import threading

import pytest

from further_source.review.queue import Queue
from further_source.review.selecting import cells_below
from further_source.review.store import ReviewStore
from further_source.sandbox import cell
from tests.review.conftest import Load


def queue_of(store: ReviewStore) -> Queue:
    store.prepare()
    return Queue(store, cells_below(store, 1.0), sampled=False)


def test_a_cell_that_a_load_has_changed_is_not_shown_any_more(load: Load, store: ReviewStore) -> None:
    load("a", [{"x": cell("1", 0.1), "y": cell("2", 0.2)}])
    queue = queue_of(store)
    load("a", [{"x": cell("new", 0.1), "y": cell("2", 0.2)}])

    taken = queue.take("ann")
    assert taken is not None
    assert (taken.field, queue.rows_around(taken), queue.left) == ("x", None, 1)
    taken = queue.take("ann")
    assert taken is not None
    assert taken.field == "y"
    [[*row]] = queue.rows_around(taken) or [[]]
    assert sorted(one.value or "" for one in row) == ["2", "new"]


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", ["duckdb"], indirect=True)
def test_only_the_rows_around_a_cell_are_read(load: Load, store: ReviewStore) -> None:
    load("a", [{"x": cell(str(number), 0.1 if number == 50 else 1)} for number in range(100)])
    queue = queue_of(store)

    taken = queue.take("ann")
    assert taken is not None
    assert [row[0].row_index for row in queue.rows_around(taken) or []] == [48, 49, 50, 51, 52]


@pytest.mark.parametrize("pipeline", ["duckdb"], indirect=True)
def test_a_verdict_that_is_sent_again_is_stored_once_and_another_is_refused(load: Load, store: ReviewStore) -> None:
    load("a", [{"x": cell("1", 0.1)}])
    queue = queue_of(store)
    taken = queue.take("ann")
    assert taken is not None

    assert queue.save("ann", taken.fingerprint, "correct", "", "") is None
    assert queue.save("ann", taken.fingerprint, "correct", "", "") is None
    assert queue.save("ann", taken.fingerprint, "unreadable", "", "") == "ann has given it a verdict already"
    assert queue.save("bob", taken.fingerprint, "correct", "", "") == "ann has given it a verdict already"
    assert store.rows("SELECT verdict, reviewer FROM {reviews}") == [("correct", "ann")]


@pytest.mark.parametrize("pipeline", ["duckdb"], indirect=True)
def test_a_verdict_that_another_server_stored_is_the_only_one(load: Load, store: ReviewStore) -> None:
    load("a", [{"x": cell("1", 0.1), "y": cell(None, 0.2), "z": cell("3", 0.3)}])
    one, other = queue_of(store), queue_of(store)
    x, y, z = one.cells
    assert one.save("ann", x.fingerprint, "correct", "", "") is None
    assert one.save("ann", y.fingerprint, "unreadable", "", "") is None

    assert other.rows_around(x) is None
    assert other.save("bob", y.fingerprint, "correct", "", "") == "ann has given it a verdict already"
    assert other.take("bob") == z
    one.undo("ann")
    assert one.rows_around(y) is not None
    assert store.rows("SELECT DISTINCT reviewer FROM {reviews}") == [("ann",)]


def test_what_no_database_holds_in_a_text_is_replaced(load: Load, store: ReviewStore) -> None:
    load("a", [{"x": cell("1", 0.1)}])
    queue = queue_of(store)
    [one] = queue.cells

    assert queue.save("an\x00n", one.fingerprint, "corrected", "a\x00b\ud800", "\udfff") is None
    assert store.rows("SELECT corrected_value, reviewer, reason FROM {reviews}") == [
        ("a\ufffdb\ufffd", "an\ufffdn", "\ufffd")
    ]


@pytest.mark.slow
def test_of_many_people_at_once_each_cell_gets_one_verdict(load: Load, store: ReviewStore) -> None:
    load("a", [{f"f{number}": cell("1", 0.1) for number in range(24)}])
    queue = queue_of(store)
    problems: list[str] = []

    def review(name: str) -> None:
        while (taken := queue.take(name)) is not None:
            problem = queue.save(name, taken.fingerprint, "correct", "", "")
            if problem:
                problems.append(problem)

    people = [threading.Thread(target=review, args=(f"person {number}",)) for number in range(6)]
    for one in people:
        one.start()
    for one in people:
        one.join()

    assert (problems, queue.left) == ([], 0)
    assert store.rows("SELECT count(*), count(DISTINCT field) FROM {reviews}") == [(24, 24)]
