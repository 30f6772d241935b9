"""What holds of polling whatever the API does: thousands of generated runs, in virtual time."""

import bisect
import math
import os
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise, takewhile

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from further_source.executions import ExecutionId
from further_source.polling.backoff import next_interval
from further_source.polling.outcomes import (
    Answered,
    Failure,
    Refused,
    Throttled,
    Token,
    Unauthorized,
)
from further_source.settings import (
    MAX_FAILURES_IN_A_ROW,
    MAX_JITTER,
    MAX_RETRY_AFTER,
    MAX_UNREADABLE_IN_A_ROW,
    SHORT_RETRY_AFTERS_IN_A_ROW,
    PollingSettings,
)
from tests.support.virtual import (
    START,
    Outage,
    Reply,
    Run,
    Script,
    Sent,
    answer,
    fault,
    garbled,
    grant,
    listed,
    poll,
    refuse,
    throttle,
    unauthorized,
    utc,
)

SLACK = 1e-6  # seconds of rounding, also where a generous budget shifts a request by its tick
TERMINAL = frozenset({"completed", "failed", "cancelled"})


def examples(count: int) -> settings:
    return settings(
        max_examples=count if "MANY_EXAMPLES" in os.environ else count // 5,
        deadline=None,
        derandomize="CI" in os.environ,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    )


# Scenarios


@dataclass(frozen=True)
class Scenario:
    scripts: dict[ExecutionId, Script]
    settings: PollingSettings
    tokens: Script | None = None
    revoked_at: tuple[float, ...] = ()
    seconds_per_end: float = 0.0
    outages: tuple[Outage, ...] = ()
    jitter: int | None = None  # the seed of it; None: there is none

    def poll(self, stop_at: float = math.inf) -> Run:
        return poll(
            self.scripts,
            self.settings,
            tokens=self.tokens,
            revoked_at=self.revoked_at,
            outages=self.outages,
            stop_at=stop_at,
            seconds_per_end=self.seconds_per_end,
            chance=(lambda: 0.0) if self.jitter is None else random.Random(self.jitter).random,  # noqa: S311
        )

    @property
    def least(self) -> float:
        """The shortest that a wait can be, as a share of it."""
        return 1 if self.jitter is None else 1 - MAX_JITTER


QUICK = st.sampled_from([0.0, 0.01, 0.25])
LATENCIES = st.one_of(QUICK, QUICK, QUICK, st.sampled_from([0.5, 3.0, 60.0]), st.floats(0, 70))
RETRY_AFTERS = st.sampled_from([None, None, 0.0, 0.5, 3.0, 40.0, 1000.0])
ENDINGS = st.sampled_from(["completed", "completed", "completed", "FAILED", "cancelled"])
NOT_SETTLED = st.sampled_from(["running", "running", "queued", "Running"])
FINAL_WORDS = st.sampled_from(["not_found", "forbidden", "rejected", "invalid"])
outages = st.builds(
    lambda begins_at, seconds, latency: Outage(begins_at, begins_at + seconds, latency),
    st.floats(0, 200),
    st.one_of(st.floats(1, 300), st.just(math.inf)),
    LATENCIES,
)
LIVES = st.sampled_from([None, 0.0, 0.5, 3.0, 20.0, 3600.0])

faults = st.builds(fault, st.just("fault"), LATENCIES)
throttles = st.builds(throttle, RETRY_AFTERS, LATENCIES)
endless = st.builds(answer, NOT_SETTLED, LATENCIES)
unreadables = st.builds(garbled, st.sampled_from(["empty", "not JSON"]), LATENCIES)
replies = st.one_of(
    endless,
    endless,
    faults,
    faults,
    unreadables,
    throttles,
    st.builds(answer, ENDINGS, LATENCIES),
    st.builds(refuse, FINAL_WORDS, LATENCIES),
)
replies_and_401 = st.one_of(replies, replies, replies, st.builds(unauthorized, LATENCIES))
token_replies = st.one_of(
    st.builds(grant, LIVES, LATENCIES),
    st.builds(grant, LIVES, LATENCIES),
    st.builds(fault, st.just("token fault"), LATENCIES),
    throttles,
)
JITTERS = st.sampled_from([None, 1, 2, 3])
REPEATS = st.sampled_from([1, 1, 1, 2, 5, 9, 10])


@st.composite
def scripts_of(draw: st.DrawFn, reply: st.SearchStrategy[Reply], most: int = 5) -> Script:
    script = draw(st.lists(st.tuples(reply, REPEATS), min_size=1, max_size=most))
    return tuple(reply for reply, repeats in script for _ in range(repeats)) * draw(st.sampled_from([1, 1, 3]))


@st.composite
def polling_settings(draw: st.DrawFn) -> PollingSettings:
    initial = draw(st.sampled_from([0.5, 0.5, 3.0, 13.0]))
    return PollingSettings(
        initial_interval=initial,
        backoff_factor=draw(st.sampled_from([1, 1.5, 4])),
        max_interval=initial * draw(st.sampled_from([1, 2, 6])),
        max_wait=draw(st.sampled_from([0, 1, 30, 100, 100])),
        max_requests_per_second=draw(st.sampled_from([0.3, 2, 10, 50])),
        max_workers=draw(st.sampled_from([1, 2, 8, 64])),
        outage_patience=draw(st.sampled_from([0.0, 5.0, 100.0, 900.0])),
        terminal_statuses=TERMINAL,
    )


@st.composite
def many_scripts(
    draw: st.DrawFn,
    script: st.SearchStrategy[Script],
    workflow: str = "wf",
    sizes: tuple[int, ...] = (5, 5, 5, 30, 300),
) -> dict[ExecutionId, Script]:
    """Few kinds of script, dealt out to as many executions as there are."""
    count = draw(st.integers(0, draw(st.sampled_from(sizes))))
    kinds = draw(st.lists(script, min_size=1, max_size=5))
    deal = random.Random(draw(st.integers(0, 2**16)))  # noqa: S311  it deals scripts, not secrets
    return {execution: deal.choice(kinds) for execution in listed(count, workflow)}


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    renewable = draw(st.booleans())
    reply = replies_and_401 if draw(st.integers(0, 3)) == 0 else replies
    return Scenario(
        scripts=draw(many_scripts(scripts_of(reply))),
        settings=draw(polling_settings()),
        tokens=draw(scripts_of(token_replies, 3)) if renewable else None,
        revoked_at=tuple(draw(st.lists(st.floats(1, 200), max_size=2))) if renewable else (),
        seconds_per_end=draw(st.sampled_from([0.0, 0.0, 0.0, 0.2, 20.0])),
        outages=tuple(draw(st.lists(outages, max_size=2))),
        jitter=draw(JITTERS),
    )


# What holds of a run


def by_execution(run: Run) -> dict[ExecutionId, list[Sent]]:
    of: dict[ExecutionId, list[Sent]] = defaultdict(list)
    for sent in run.sent:
        if sent.execution is not None:
            of[sent.execution].append(sent)
    return of


def each_execution_ends_exactly_once(scenario: Scenario, run: Run) -> None:
    ends = Counter(ended.execution for ended in run.ends)
    assert all(count == 1 for count in ends.values())
    if run.error is None:
        assert ends.keys() == scenario.scripts.keys()
    else:
        assert any(isinstance(sent.outcome, Unauthorized) for sent in run.sent)


def an_end_says_what_happened(scenario: Scenario, run: Run) -> None:
    of = by_execution(run)
    for ended, at in zip(run.ends, run.end_times, strict=True):
        requests = of[ended.execution]
        answers = [sent for sent in requests if isinstance(sent.outcome, Answered)]
        last = answers[-1].outcome if answers else None
        assert last is None or isinstance(last, Answered)
        assert (ended.status, ended.payload) == ((last.status, last.payload) if last else (None, None))
        assert ended.poll_count == len(requests)
        assert ended.poll_first_at == (utc(requests[0].at) if requests else None)
        assert ended.poll_last_at == (utc(requests[-1].at) if requests else None)
        assert all(sent.arrives_at <= at + SLACK for sent in requests)
        assert (ended.poll_error is None) == (ended.poll_outcome in {"completed", "failed", "running"})

        outcome = requests[-1].outcome if requests else None
        if isinstance(outcome, Refused):
            assert (ended.poll_outcome, ended.poll_error) == (outcome.poll_outcome, outcome.error)
        elif isinstance(outcome, Answered) and outcome.status.lower() in TERMINAL:
            assert ended.poll_outcome == ("completed" if outcome.status == "completed" else "failed")
        elif ended.poll_outcome == "invalid":
            assert unreadable_at_the_end(requests) == MAX_UNREADABLE_IN_A_ROW
        elif ended.poll_outcome == "running":
            was_long = requests[-1].arrives_at - answers[0].arrives_at >= scenario.settings.max_wait - SLACK
            assert was_long or only_throttled(scenario, run)
        else:
            assert ended.poll_outcome == "unreachable"
            patience = scenario.settings.outage_patience
            failed = failures_at_the_end(requests) + (patience == 0) * failures_at_the_end(token_requests(run))
            assert failed >= MAX_FAILURES_IN_A_ROW or only_throttled(scenario, run) or silent(run, at) >= patience > 0


def silent(run: Run, at: float) -> float:
    """For how many seconds the API had said nothing about any execution, and how long nothing but failures came."""
    return at - max((sent.arrives_at for sent in accepted(run) if sent.arrives_at <= at), default=0.0)


def failures_at_the_end(requests: list[Sent]) -> int:
    count = 0
    for sent in reversed(requests):
        if isinstance(sent.outcome, Answered | Token):
            break
        count += isinstance(sent.outcome, Failure)
    return count


def unreadable_at_the_end(requests: list[Sent]) -> int:
    """How many answers in a row were unreadable the same way; 429 and 401 say nothing of a body."""
    heard = [sent.outcome for sent in requests if not isinstance(sent.outcome, Throttled | Unauthorized)]
    last = heard[-1] if heard else None
    if not isinstance(last, Failure) or last.unreadable is None:
        return 0
    return sum(1 for _ in takewhile(lambda outcome: outcome == last, reversed(heard)))


def token_requests(run: Run) -> list[Sent]:
    return [sent for sent in run.sent if sent.execution is None]


def only_throttled(scenario: Scenario, run: Run) -> bool:
    """Whether for `max_wait` nothing but 429 came, ten of them each sent after the one before had arrived."""
    count, since, heard = 0, 0.0, 0.0
    for sent in sorted(run.sent, key=lambda sent: sent.arrives_at):
        if isinstance(sent.outcome, Throttled):
            if sent.at >= heard:
                count, heard = count + 1, sent.arrives_at
                since = sent.at if count == 1 else since
            if count >= MAX_FAILURES_IN_A_ROW and sent.arrives_at - since >= scenario.settings.max_wait - SLACK:
                return True
        elif sent.execution is not None:
            count = 0
    return False


def a_final_word_is_the_last_request(scenario: Scenario, run: Run) -> None:
    for requests in by_execution(run).values():
        for sent in requests[:-1]:
            outcome = sent.outcome
            assert not isinstance(outcome, Refused)
            assert not (isinstance(outcome, Answered) and outcome.status.lower() in TERMINAL)
        assert failures_at_the_end(requests) <= MAX_FAILURES_IN_A_ROW or scenario.settings.outage_patience
        for number in range(len(requests)):
            assert unreadable_at_the_end(requests[:number]) < MAX_UNREADABLE_IN_A_ROW


def requests_keep_to_the_rate_budget(scenario: Scenario, run: Run) -> None:
    spacing = 1 / scenario.settings.max_requests_per_second
    assert all(later.at - earlier.at >= spacing - 1e-9 for earlier, later in pairwise(run.sent))


def requests_in_flight_keep_to_the_workers(scenario: Scenario, run: Run) -> None:
    assert run.most_in_flight <= scenario.settings.max_workers


def nobody_is_asked_sooner_than_its_interval(scenario: Scenario, run: Run) -> None:
    """But for the last request: one that gets 401 is not the last, nor one that fails while the API is out."""
    not_last = (Unauthorized, Failure, Throttled) if scenario.settings.outage_patience else Unauthorized
    for requests in by_execution(run).values():
        interval = scenario.settings.initial_interval
        first_answer_at = math.inf
        for number, (sent, later) in enumerate(pairwise(requests), 1):
            assert later.at >= sent.arrives_at
            if isinstance(sent.outcome, Answered):
                first_answer_at = min(first_answer_at, sent.arrives_at)
            if isinstance(sent.outcome, Unauthorized):
                continue
            wait = interval * scenario.least if isinstance(sent.outcome, Failure) else interval
            if later.at < sent.arrives_at + wait - SLACK:
                assert later.at >= first_answer_at + scenario.settings.max_wait - SLACK
                assert all(isinstance(more.outcome, not_last) for more in requests[number:-1])
            if not isinstance(sent.outcome, Throttled):
                interval = next_interval(interval, scenario.settings)


def a_429_pauses_everybody(scenario: Scenario, run: Run) -> None:
    pauses = sorted(
        (sent.arrives_at, sent.arrives_at + pause(scenario, sent.outcome))
        for sent in run.sent
        if isinstance(sent.outcome, Throttled)
    )
    upcoming, paused_until = 0, 0.0
    for sent in run.sent:
        while upcoming < len(pauses) and pauses[upcoming][0] < sent.at:
            paused_until = max(paused_until, pauses[upcoming][1])
            upcoming += 1
        assert sent.at >= paused_until - SLACK


def pause(scenario: Scenario, outcome: Throttled) -> float:
    """The least pause after this 429."""
    if outcome.retry_after is None:
        return scenario.settings.initial_interval * scenario.least
    return min(outcome.retry_after, MAX_RETRY_AFTER)


def only_a_few_short_retry_afters_are_obeyed(scenario: Scenario, run: Run) -> None:
    """After three 429 in a row, each sent after the one before had come, every further one is followed by a pause."""
    least = scenario.settings.initial_interval * scenario.least
    times = [sent.at for sent in run.sent]
    count, heard = 0, 0.0
    for sent in sorted(run.sent, key=lambda sent: sent.arrives_at):
        if isinstance(sent.outcome, Throttled):
            if sent.at > heard:
                count, heard = count + 1, sent.arrives_at
            if count > SHORT_RETRY_AFTERS_IN_A_ROW + 1:
                following = bisect.bisect(times, sent.arrives_at)
                assert following == len(times) or times[following] >= sent.arrives_at + least - SLACK
        elif sent.execution is not None:
            count = 0


def a_token_is_renewed_only_when_due(scenario: Scenario, run: Run) -> None:
    """Each token but the last is used, until it is to be renewed or was refused, and never after it expired."""
    uses: Counter[str] = Counter()
    refused_at: dict[str, float] = {}
    token: Token | None = None
    waiting: Sent | None = None
    for sent in run.sent:
        if waiting is not None and sent.at >= waiting.arrives_at and isinstance(waiting.outcome, Token):
            token, waiting = waiting.outcome, None
        if sent.execution is None:
            if waiting is not None:
                assert sent.at >= waiting.arrives_at + scenario.settings.initial_interval * scenario.least - SLACK
            if token is not None:
                refused = refused_at.get(token.value, math.inf) <= sent.at
                assert uses[token.value] >= 1
                assert refused or (token.renew_at is not None and START + sent.at >= token.renew_at - SLACK)
            waiting = sent
        elif sent.token is not None:
            uses[sent.token.value] += 1
            if uses[sent.token.value] > 1 and sent.token.expires_at is not None:
                assert START + sent.at < sent.token.expires_at + SLACK
            if isinstance(sent.outcome, Unauthorized):
                refused_at[sent.token.value] = min(sent.arrives_at, refused_at.get(sent.token.value, math.inf))


def accepted(run: Run) -> list[Sent]:
    """The requests whose outcome shows that their token was accepted."""
    return [sent for sent in run.sent if isinstance(sent.outcome, Answered | Refused)]


def credentials_are_given_up_only_after_a_renewal(scenario: Scenario, run: Run) -> None:
    """The last 401 was for a token that came after a 401, and was sent before anything was accepted since."""
    if scenario.tokens is None:
        return
    refused = [sent for sent in run.sent if isinstance(sent.outcome, Unauthorized)]
    granted = [sent for sent in run.sent if isinstance(sent.outcome, Token)]
    vouching = accepted(run)

    def stops(last: Sent) -> bool:
        """Whether there is a token that came after a 401 and before this one was sent, and vouched for by nobody."""
        return any(
            token.arrives_at <= last.at
            and any(first.arrives_at <= token.arrives_at for first in refused)
            and not any(token.arrives_at <= sent.at and sent.arrives_at <= last.at for sent in vouching)
            for token in granted
        )

    heard = [sent for sent in refused if sent.arrives_at <= run.clock.since_start]
    if run.error is not None:
        assert any(stops(last) for last in heard)


def a_token_refused_for_ever_costs_few(scenario: Scenario, run: Run) -> None:
    """After each 401 there is one more token, if something was accepted in between."""
    if scenario.tokens is None or any(
        sent.outcome.renew_at is not None for sent in run.sent if isinstance(sent.outcome, Token)
    ):
        return  # these are renewed by the clock, too
    granted = sum(isinstance(sent.outcome, Token) for sent in run.sent)
    assert granted <= 2 + len(accepted(run))


def requests_are_bounded(scenario: Scenario, run: Run) -> None:
    """An execution is asked once per interval, once more after each 401, and a last time.

    A 401 comes to it for the token before, for one that was already asked for then, and for the next, which ends the
    run unless something was accepted in between.

    Of tokens there is no more than one per request that uses it, and one unused; failures and 429 for a token are
    an interval apart.
    """
    interval = scenario.settings.initial_interval * scenario.least
    accepted_in_all = len(accepted(run))
    asked = 0
    for requests in by_execution(run).values():
        after_401 = sum(isinstance(sent.outcome, Unauthorized) for sent in requests)
        assert after_401 <= 3 + accepted_in_all
        assert len(requests) <= (requests[-1].at - requests[0].at + SLACK) / interval + 2 + after_401
        asked += len(requests)
    granted = sum(isinstance(sent.outcome, Token) for sent in run.sent)
    assert granted <= asked + 1
    for sent, later in pairwise(token_requests(run)):
        assert isinstance(sent.outcome, Token) or later.at >= sent.arrives_at + interval - SLACK


def it_ends_in_time(scenario: Scenario, run: Run) -> None:
    """The longest time without a request is G; there are few outcomes that are no 429, and few 429 between them.

    Of an execution that never answered there are 10 failures at most; the first answer is followed by one request
    per interval until `max_wait`, and a last one. An outage adds what is under way when it begins, and the requests
    that ask whether it is over; each but the first comes after an answer. Between two such outcomes, and 401, 429 may
    come for `max_wait` and ten times in a row, each with ten failed requests for a token.
    """
    rules = scenario.settings
    latency = max((sent.arrives_at - sent.at for sent in run.sent), default=0.0)
    stall = max(MAX_RETRY_AFTER, rules.max_interval) + latency + 1 / rules.max_requests_per_second
    if not scenario.seconds_per_end:
        assert all(later.at - earlier.at <= stall + SLACK for earlier, later in pairwise(run.sent))

    most = 12 + rules.max_wait / (rules.initial_interval * scenario.least)
    outcomes, counted = 0, 0
    for requests in by_execution(run).values():
        heard = [sent for sent in requests if not isinstance(sent.outcome, Throttled)]
        last = sum(not isinstance(sent.outcome, Unauthorized) for sent in heard)
        assert last <= most or rules.outage_patience
        outcomes += len(heard)
        counted += last
    in_outages = rules.max_workers + 2 + probes(scenario, rules.outage_patience + stall)
    assert counted <= most * len(scenario.scripts) + (len(accepted(run)) + 1) * in_outages
    taken = len(run.ends) * scenario.seconds_per_end
    assert run.clock.since_start - taken <= (outcomes + 1) * (rules.max_wait + 10 * (10 + 1) * stall)


def probes(scenario: Scenario, seconds: float) -> int:
    """How many requests can ask within so many seconds whether an outage is over."""
    count, passed, interval = 1, 0.0, scenario.settings.initial_interval
    while passed < seconds:
        passed += interval * scenario.least
        interval = next_interval(interval, scenario.settings)
        count += 1
    return count


def it_waits_no_more_often_than_something_happens(scenario: Scenario, run: Run) -> None:
    """After each request and each arrival: for a pause, a due time, a token and the budget, each rounded, and once
    to look whether more has come."""
    assert run.waits <= 12 * len(run.sent) + 12


RULES: list[Callable[[Scenario, Run], None]] = [
    each_execution_ends_exactly_once,
    an_end_says_what_happened,
    a_final_word_is_the_last_request,
    requests_keep_to_the_rate_budget,
    requests_in_flight_keep_to_the_workers,
    nobody_is_asked_sooner_than_its_interval,
    a_429_pauses_everybody,
    only_a_few_short_retry_afters_are_obeyed,
    a_token_is_renewed_only_when_due,
    credentials_are_given_up_only_after_a_renewal,
    a_token_refused_for_ever_costs_few,
    requests_are_bounded,
    it_ends_in_time,
    it_waits_no_more_often_than_something_happens,
]


@examples(2000)
@given(scenarios())
def test_whatever_the_api_does_the_rules_hold(scenario: Scenario) -> None:
    run = scenario.poll()
    for rule in RULES:
        rule(scenario, run)


# Runs compared


@st.composite
def quiet_settings(draw: st.DrawFn) -> PollingSettings:
    """With a budget and workers that are never felt, and outages that nobody sits out."""
    return replace(draw(polling_settings()), max_requests_per_second=1e9, max_workers=10_000, outage_patience=0)


def told(run: Run, execution: ExecutionId) -> tuple[object, ...]:
    ended = run.end(execution)
    return (ended.poll_outcome, ended.status, ended.poll_error, ended.poll_count)


calm = st.one_of(
    endless,
    endless,
    faults,
    unreadables,
    st.builds(answer, ENDINGS, LATENCIES),
    st.builds(refuse, FINAL_WORDS, LATENCIES),
)
SMALL = (3, 3, 10, 60)


@pytest.mark.slow
@examples(400)
@given(
    many_scripts(scripts_of(calm), "calm", SMALL),
    many_scripts(scripts_of(st.one_of(faults, faults, calm)), "faulty", SMALL),
    quiet_settings(),
)
def test_faults_of_some_change_nothing_for_the_others(
    others: dict[ExecutionId, Script], faulty: dict[ExecutionId, Script], quiet: PollingSettings
) -> None:
    alone = poll(others, quiet)
    together = poll(faulty | others, quiet)

    for execution in others:
        assert told(together, execution) == told(alone, execution)
        times = zip(together.times(execution), alone.times(execution), strict=True)
        assert all(abs(with_faults - without) <= SLACK for with_faults, without in times)


@pytest.mark.slow
@examples(300)
@given(
    many_scripts(scripts_of(calm), "calm", SMALL),
    many_scripts(scripts_of(st.one_of(faults, calm)), "faulty", SMALL),
    polling_settings(),
)
def test_faults_of_some_take_from_the_others_no_more_than_the_budget_they_use(
    others: dict[ExecutionId, Script], faulty: dict[ExecutionId, Script], rules: PollingSettings
) -> None:
    roomy = replace(rules, max_workers=10_000, outage_patience=0)
    together = poll(others | faulty, roomy)

    # Whoever is due waits for a slot behind those that are due before it, and for nothing else.
    spacing = 1 / roomy.max_requests_per_second
    due = {execution: number * spacing for number, execution in enumerate([*others, *faulty])}
    interval = dict.fromkeys(due, roomy.initial_interval)
    first_answer_at: dict[ExecutionId, float] = {}
    free_at = 0.0
    for sent in together.sent:
        assert sent.execution is not None
        earliest = min(due.values())
        assert due[sent.execution] <= max(earliest, sent.at) + SLACK
        assert abs(sent.at - max(earliest, free_at)) <= SLACK
        free_at = sent.at + spacing
        if isinstance(sent.outcome, Answered):
            first_answer_at.setdefault(sent.execution, sent.arrives_at)
        deadline = first_answer_at.get(sent.execution, math.inf) + roomy.max_wait
        due[sent.execution] = min(sent.arrives_at + interval[sent.execution], max(deadline, sent.arrives_at))
        interval[sent.execution] = next_interval(interval[sent.execution], roomy)
        if sent is together.of(sent.execution)[-1]:
            del due[sent.execution]
    assert not due


@pytest.mark.slow
@examples(300)
@given(
    many_scripts(scripts_of(st.one_of(endless, st.builds(answer, ENDINGS, LATENCIES))), "fine", SMALL),
    many_scripts(scripts_of(faults), "faulty", (1, 2)),
    quiet_settings(),
)
def test_faults_of_one_or_two_are_no_outage_as_long_as_others_are_answered(
    others: dict[ExecutionId, Script], faulty: dict[ExecutionId, Script], quiet: PollingSettings
) -> None:
    patient = replace(quiet, outage_patience=900)
    together = poll(faulty | others, patient)

    alone = poll(others, patient)
    for execution in others:
        assert told(together, execution) == told(alone, execution)
    last = max((sent.arrives_at for sent in together.sent if sent.execution in others), default=0.0)
    assert not any(state.outage_reason for at, state in together.states if at < last)


@pytest.mark.slow
@examples(300)
@given(many_scripts(scripts_of(calm), "wf", SMALL), quiet_settings(), st.randoms(use_true_random=False))
def test_the_order_of_the_list_changes_no_result(
    scripts: dict[ExecutionId, Script], quiet: PollingSettings, chance: random.Random
) -> None:
    shuffled = list(scripts)
    chance.shuffle(shuffled)
    run = poll(scripts, quiet)
    other = poll({execution: scripts[execution] for execution in shuffled}, quiet)

    for execution in scripts:
        assert told(other, execution) == told(run, execution)


@pytest.mark.slow
@examples(300)
@given(scenarios(), st.floats(0, 300))
def test_stopped_at_any_time_it_asks_nothing_more_and_tells_only_what_ended(scenario: Scenario, stop_at: float) -> None:
    scenario = replace(scenario, seconds_per_end=0.0)
    whole = scenario.poll()
    run = scenario.poll(stop_at)

    assert run.sent == whole.sent[: len(run.sent)]
    assert run.ends == whole.ends[: len(run.ends)]
    assert all(sent.at < stop_at for sent in run.sent)
    assert all(ended in run.ends for ended, at in zip(whole.ends, whole.end_times, strict=True) if at < stop_at)


# Outages of the API as a whole


@st.composite
def outages_to_sit_out(draw: st.DrawFn) -> Scenario:
    """Executions that would complete, and outages with a while in between, each shorter than the patience."""
    kind = st.tuples(st.integers(0, 12), QUICK).map(
        lambda drawn: (*[answer("running", drawn[1])] * drawn[0], answer("completed", drawn[1]))
    )
    spells, begins_at = [], 0.0
    for _ in range(draw(st.integers(1, 3))):
        begins_at += draw(st.one_of(st.just(0.0), st.floats(0, 200)))
        spells.append(Outage(begins_at, begins_at + draw(st.floats(1, 600)), draw(st.sampled_from([0.0, 0.5, 60.0]))))
        begins_at = spells[-1].ends_at + 300
    return Scenario(
        scripts=draw(many_scripts(kind, sizes=(1, 2, 3, 30, 300))),
        settings=replace(draw(polling_settings()), max_wait=100_000, outage_patience=900),
        tokens=draw(st.sampled_from([None, (grant(None),), (grant(3600.0, 0.1),), (grant(20.0),), (grant(0.5),)])),
        outages=tuple(spells),
        jitter=draw(JITTERS),
    )


@examples(200)
@given(outages_to_sit_out())
def test_an_outage_shorter_than_the_patience_ends_nothing_and_costs_few_requests(scenario: Scenario) -> None:
    run = scenario.poll()

    assert (run.error, {ended.poll_outcome for ended in run.ends} - {"completed"}) == (None, set())
    assert len(run.ends) == len(scenario.scripts)
    rules = scenario.settings
    for outage in scenario.outages:
        during = [sent for sent in run.sent if outage.begins_at <= sent.at < outage.ends_at]
        # Until three have failed, two may be asked again and again while the third one waits for its turn.
        before_it_is_known = rules.max_workers + 2 * probes(scenario, rules.max_interval + outage.latency) + 2
        asking = probes(scenario, outage.ends_at - outage.begins_at)
        assert len(during) <= before_it_is_known + asking * (1 if scenario.tokens is None else 2)


@examples(200)
@given(outages_to_sit_out())
def test_after_an_outage_it_goes_on_soon(scenario: Scenario) -> None:
    run = scenario.poll()

    rules = scenario.settings
    spacing = 1 / rules.max_requests_per_second
    for outage in scenario.outages:
        if any(sent.at >= outage.ends_at for sent in run.sent):
            first = min(sent.at for sent in accepted(run) if sent.at >= outage.ends_at)
            assert first <= outage.ends_at + 2 * (outage.latency + rules.max_interval + spacing) + 1


@examples(200)
@given(outages_to_sit_out(), st.sampled_from([5.0, 100.0, 900.0]))
def test_an_outage_without_end_is_sat_out_and_then_all_that_is_left_is_unreachable(
    scenario: Scenario, patience: float
) -> None:
    begins_at, latency = scenario.outages[0].begins_at, scenario.outages[0].latency
    scenario = replace(
        scenario,
        settings=replace(scenario.settings, outage_patience=patience),
        outages=(Outage(begins_at, latency=latency),),
    )
    run = scenario.poll()

    rules = scenario.settings
    left = [(ended, at) for ended, at in zip(run.ends, run.end_times, strict=True) if ended.poll_outcome != "completed"]
    assert len(run.ends) == len(scenario.scripts)
    for ended, at in left:
        assert (ended.poll_outcome, ended.poll_error) == ("unreachable", "out")
        assert begins_at + patience <= at
        # Three fail before it is known, one after the other if there is but one worker; then the last one asks.
        each = latency + rules.max_interval + 2 / rules.max_requests_per_second
        assert at <= begins_at + patience + 5 * each + 1
