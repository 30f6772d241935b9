"""Real threads, real time, and as little of it as can be: they wait for events, not for seconds."""

import math
import threading
import time
import weakref
from collections.abc import Callable, Iterator

import pytest

from further_source.exceptions import CredentialsError
from further_source.executions import ExecutionId
from further_source.polling.outcomes import (
    Answered,
    Failure,
    Outcome,
    Token,
    TokenOutcome,
)
from further_source.polling.poll import Ended, Request, poll_executions
from further_source.polling.workers import Poller, Threads
from further_source.settings import PollingSettings
from tests.support.virtual import START_UTC, VirtualClock, listed

LONG = 20.0  # seconds that pass only when a test fails
NOW = Request(None, None, 0.0)
DONE = Answered("completed", {"status": "completed"})


def until(condition: Callable[[], bool]) -> None:
    """Waits for what no event tells of."""
    give_up_at = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.001)


@pytest.fixture
def make_threads() -> Iterator[Callable[[int], Threads]]:
    made: list[Threads] = []

    def make(max_workers: int) -> Threads:
        made.append(Threads(max_workers, clock=VirtualClock()))
        return made[-1]

    before = set(threading.enumerate())
    yield make
    for threads in made:
        threads.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(LONG)
        assert not thread.is_alive()


MakeThreads = Callable[[int], Threads]


def collect(threads: Threads, count: int) -> list[tuple[Request, Outcome | TokenOutcome, float]]:
    arrivals: list[tuple[Request, Outcome | TokenOutcome, float]] = []
    while len(arrivals) < count:
        more = threads.wait(LONG)
        assert more
        arrivals += more
    return arrivals


# Threads


def test_threads_start_as_they_are_needed(make_threads: MakeThreads) -> None:
    before = set(threading.enumerate())
    threads = make_threads(8)
    assert set(threading.enumerate()) == before

    for _ in range(5):
        threads.submit(NOW, lambda: DONE)
        collect(threads, 1)

    assert len(set(threading.enumerate()) - before) == 1


def test_as_many_calls_run_side_by_side_as_there_are_workers_and_no_more(make_threads: MakeThreads) -> None:
    before = set(threading.enumerate())
    threads = make_threads(3)
    together = threading.Barrier(3)

    def call() -> Outcome:
        together.wait(LONG)  # passed only when three run at once
        return DONE

    for _ in range(21):
        threads.submit(NOW, call)
    assert len(set(threading.enumerate()) - before) == 3

    assert [outcome for _, outcome, _ in collect(threads, 21)] == [DONE] * 21


def test_an_arrival_names_its_request_its_outcome_and_when_it_came(make_threads: MakeThreads) -> None:
    clock = VirtualClock()
    clock.now = 77.5
    threads = Threads(1, clock=clock)
    request = Request(None, Token("secret"), 70.0)
    threads.submit(request, lambda: DONE)

    assert collect(threads, 1) == [(request, DONE, 77.5)]
    threads.close()


def test_a_call_that_raises_is_a_failure_and_the_worker_goes_on(make_threads: MakeThreads) -> None:
    threads = make_threads(1)

    def defective() -> Outcome:
        raise ValueError("with a secret")

    threads.submit(NOW, defective)
    threads.submit(NOW, lambda: DONE)

    outcomes = [outcome for _, outcome, _ in collect(threads, 2)]
    assert outcomes == [Failure("ValueError in the client"), DONE]


@pytest.mark.parametrize("seconds", [0, 0.01])
def test_a_wait_ends_when_its_seconds_are_over(make_threads: MakeThreads, seconds: float) -> None:
    began = time.monotonic()

    assert make_threads(1).wait(seconds) == []
    assert seconds <= time.monotonic() - began < LONG


@pytest.mark.parametrize("seconds", [LONG, math.inf, 1e300])
def test_a_wait_ends_as_soon_as_anything_arrives_however_long_it_may_last(
    make_threads: MakeThreads, seconds: float
) -> None:
    threads = make_threads(1)
    began = time.monotonic()
    threads.submit(NOW, lambda: DONE)

    assert [outcome for _, outcome, _ in threads.wait(seconds)] == [DONE]
    assert time.monotonic() - began < LONG


def test_a_wait_takes_all_that_has_arrived(make_threads: MakeThreads) -> None:
    threads = make_threads(1)
    last = threading.Event()

    def call() -> Outcome:
        last.set()
        return Failure("the last")

    threads.submit(NOW, lambda: DONE)
    threads.submit(NOW, lambda: DONE)
    threads.submit(NOW, call)
    assert last.wait(LONG)

    assert len(threads.wait(LONG)) >= 2


@pytest.mark.parametrize("seconds", [LONG, math.inf])
def test_wake_ends_a_wait_from_another_thread(make_threads: MakeThreads, seconds: float) -> None:
    threads = make_threads(1)
    waker = threading.Thread(target=threads.wake)
    began = time.monotonic()
    waker.start()

    assert threads.wait(seconds) == []
    assert time.monotonic() - began < LONG
    waker.join()


def test_a_wake_before_the_wait_is_not_lost_and_loses_no_arrival(make_threads: MakeThreads) -> None:
    threads = make_threads(1)
    threads.wake()
    began = time.monotonic()
    assert threads.wait(LONG) == []
    assert time.monotonic() - began < LONG

    threads.wake()
    threads.submit(NOW, lambda: DONE)
    collected = threads.wait(LONG) or collect(threads, 1)
    assert [outcome for _, outcome, _ in collected] == [DONE]


def test_a_busy_worker_is_a_daemon_and_ends_with_its_request() -> None:
    threads = Threads(1)
    begun, go = threading.Event(), threading.Event()
    workers: list[threading.Thread] = []

    def call() -> Outcome:
        workers.append(threading.current_thread())
        begun.set()
        go.wait(LONG)
        return DONE

    threads.submit(NOW, call)
    assert begun.wait(LONG)
    threads.close()
    threads.close()

    assert workers[0].daemon
    assert workers[0].is_alive()
    go.set()
    workers[0].join(LONG)
    assert not workers[0].is_alive()


class QuickApi:
    """Runs twice, then is completed; for real threads."""

    renewable = True
    token: Token | None = None

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: dict[ExecutionId, int] = {}

    def request_token(self) -> TokenOutcome:
        return Token("of a real thread")

    def get_execution(self, execution: ExecutionId, token: Token) -> Outcome:
        with self._lock:
            asked = self._asked[execution] = self._asked.get(execution, 0) + 1
        return DONE if asked == 3 else Answered("running", {"status": "running"})


def test_polling_with_real_threads_and_a_real_clock_ends_each_execution_once() -> None:
    executions = listed(100)
    threads = Threads(8)
    settings = PollingSettings(initial_interval=0.01, max_interval=0.02, max_requests_per_second=5000)

    ends = list(poll_executions(executions, QuickApi(), settings, workers=threads, clock=time.monotonic))
    threads.close()

    assert sorted(ended.execution for ended in ends) == sorted(executions)
    assert {(ended.poll_outcome, ended.poll_count) for ended in ends} == {("completed", 3)}


def test_nobody_keeps_an_answer_that_was_taken() -> None:
    class Large(dict[str, object]):
        """Unlike a dict's, its end can be watched."""

    answers: list[weakref.ref[Large]] = []
    last_may_end, together = threading.Event(), threading.Barrier(7)

    class Api(QuickApi):
        def get_execution(self, execution: ExecutionId, token: Token) -> Outcome:
            if execution == executions[-1]:
                last_may_end.wait(LONG)
                return DONE
            together.wait(LONG)  # each has a thread of its own, which is idle afterwards
            payload = Large(status="completed")
            answers.append(weakref.ref(payload))
            return Answered("completed", payload, 1)

    executions = listed(8)
    threads = Threads(8)
    settings = PollingSettings(max_requests_per_second=5000)
    poller = Poller(lambda: poll_executions(executions, Api(), settings, workers=threads, clock=time.monotonic))
    poller.start()
    try:
        taken = 0
        while taken < 7:
            taken += len(poller.page(0.01))
        until(lambda: sum(answer() is not None for answer in answers) <= 1)  # the generator's own last one
    finally:
        last_may_end.set()
        threads.close()
        poller.join(LONG)
        threads.join(LONG)


# Poller


def ended(number: int, size: int = 1) -> Ended:
    return Ended(ExecutionId("wf", str(number)), "completed", "completed", {}, None, 1, START_UTC, START_UTC, size)


def started(poll: Callable[[], Iterator[Ended]], *, max_bytes: int = 8_000_000) -> Poller:
    poller = Poller(poll, max_bytes=max_bytes)
    poller.start()
    return poller


def take_all(poller: Poller) -> list[Ended]:
    taken: list[Ended] = []
    while not poller.exhausted:
        taken += poller.page(LONG)
    return taken


def test_all_that_is_polled_is_handed_out_once_and_in_order() -> None:
    expected = [ended(number) for number in range(1000)]
    poller = started(lambda: iter(expected), max_bytes=10)

    assert take_all(poller) == expected
    assert poller.error is None
    assert poller.page(LONG) == []


def test_a_page_is_cut_at_about_its_bytes() -> None:
    poller = started(lambda: iter([ended(number, size=40) for number in range(5)]))

    assert [len(poller.page(LONG, max_bytes=100)) for _ in range(2)] == [3, 2]
    assert poller.exhausted


def test_a_page_of_no_seconds_holds_what_is_there() -> None:
    taken = threading.Event()

    def poll() -> Iterator[Ended]:
        yield ended(0)
        taken.set()
        hold.wait(LONG)
        yield ended(1)

    hold = threading.Event()
    poller = started(poll)
    assert taken.wait(LONG)

    assert poller.page(0) == [ended(0)]
    assert poller.page(0) == []
    assert not poller.exhausted
    hold.set()
    assert take_all(poller) == [ended(1)]


def test_nobody_taking_pages_no_more_is_polled_than_the_buffer_holds_and_one_answer() -> None:
    polled: list[int] = []

    def poll() -> Iterator[Ended]:
        for number in range(100):
            polled.append(number)
            yield ended(number, size=10)

    poller = started(poll, max_bytes=50)
    until(lambda: len(polled) >= 6)
    time.sleep(0.05)  # in which a poller without a bound would have polled everything
    assert len(polled) == 6

    assert [number.size for number in poller.page(LONG, max_bytes=20)] == [10, 10]
    until(lambda: len(polled) >= 8)
    time.sleep(0.05)
    assert len(polled) == 8

    assert len(take_all(poller)) == 98


def test_by_default_four_megabytes_of_answers_wait_and_the_one_that_fills_them() -> None:
    polled: list[int] = []

    def poll() -> Iterator[Ended]:
        for number in range(100):
            polled.append(number)
            yield ended(number, size=1_000_000)

    poller = Poller(poll)
    poller.start()
    until(lambda: len(polled) >= 5)
    time.sleep(0.05)  # in which a poller without a bound would have polled everything
    assert len(polled) == 5
    assert len(take_all(poller)) == 100


def test_an_answer_larger_than_the_buffer_goes_through() -> None:
    expected = [ended(number, size=1000) for number in range(5)]
    poller = started(lambda: iter(expected), max_bytes=10)

    assert take_all(poller) == expected


def test_the_error_that_ended_polling_is_kept_and_what_came_before_it_is_handed_out() -> None:
    error = CredentialsError("401")

    def poll() -> Iterator[Ended]:
        yield ended(0)
        yield ended(1)
        raise error

    poller = started(poll)

    assert take_all(poller) == [ended(0), ended(1)]
    assert poller.error is error


def test_an_error_does_not_exhaust_what_is_still_buffered() -> None:
    def poll() -> Iterator[Ended]:
        yield ended(0)
        raise CredentialsError("401")

    poller = started(poll)
    until(lambda: poller.error is not None)

    assert not poller.exhausted
    assert poller.page(LONG) == [ended(0)]
    assert poller.exhausted


def test_a_poll_that_cannot_even_begin_is_an_error_and_no_hang() -> None:
    def poll() -> Iterator[Ended]:
        raise RuntimeError("cannot begin")

    poller = started(poll)

    assert take_all(poller) == []
    assert isinstance(poller.error, RuntimeError)


def test_an_empty_poll_is_exhausted() -> None:
    poller = started(lambda: iter(()))

    assert poller.page(LONG) == []
    assert poller.exhausted
    assert poller.error is None


def test_after_a_stop_polling_waits_for_no_room_and_loses_nothing() -> None:
    polled: list[int] = []
    polling: list[threading.Thread] = []

    def poll() -> Iterator[Ended]:
        polling.append(threading.current_thread())
        for number in range(100):
            polled.append(number)
            yield ended(number, size=10)

    poller = started(poll, max_bytes=50)
    until(lambda: len(polled) == 6)
    poller.stop()

    polling[0].join(LONG)
    assert not polling[0].is_alive()
    assert not poller.exhausted
    assert len(take_all(poller)) == 100
    assert poller.exhausted
    assert poller.error is None


def test_what_was_never_answered_takes_room_too() -> None:
    polled: list[int] = []

    def poll() -> Iterator[Ended]:
        for number in range(10_000):
            polled.append(number)
            yield ended(number, size=0)

    poller = started(poll, max_bytes=50_000)
    until(lambda: len(polled) > 100)
    time.sleep(0.05)  # time to take more, if it did

    assert len(polled) < 200
    assert len(poller.page(LONG, max_bytes=10_000)) < 50
    poller.stop()


def test_the_threads_of_polling_never_keep_the_process_from_ending() -> None:
    daemons: list[bool] = []

    def poll() -> Iterator[Ended]:
        daemons.append(threading.current_thread().daemon)
        yield ended(0)

    poller = started(poll)

    assert take_all(poller) == [ended(0)]
    assert daemons == [True]
