"""The token of a run, told by hand what came and when."""

import pytest

from further_source.exceptions import CredentialsError
from further_source.polling.outcomes import Failure, Throttled, Token, Unauthorized
from further_source.polling.tokens import Tokens
from further_source.settings import PollingSettings

SETTINGS = PollingSettings(outage_patience=0)
BEGIN = 1000.0
ENDLESS = Token("endless")
SHORT = Token("short", renew_at=BEGIN + 90, expires_at=BEGIN + 100)
REFUSED = Unauthorized("401: invalid token")


def tokens(token: Token | None = None, *, renewable: bool = True) -> Tokens:
    return Tokens(token, SETTINGS, renewable=renewable, now=BEGIN, chance=lambda: 0.0)


def obtained(token: Token, now: float = BEGIN) -> Tokens:
    """As they are once a token has been asked for and come."""
    made = tokens()
    made.requested()
    made.record(token, now)
    return made


def test_without_a_token_one_is_due_at_once() -> None:
    fresh = tokens()

    assert (fresh.is_usable(BEGIN), fresh.is_due(BEGIN), fresh.ask_at) == (False, True, BEGIN)


def test_no_second_one_is_due_while_one_is_asked_for() -> None:
    asking = tokens()
    asking.requested()

    assert (asking.is_usable(BEGIN), asking.is_due(BEGIN)) == (False, False)


def test_a_static_token_is_usable_for_ever_and_never_due() -> None:
    static = tokens(ENDLESS, renewable=False)

    assert static.take() is ENDLESS
    assert (static.is_usable(BEGIN + 1e9), static.is_due(BEGIN + 1e9)) == (True, False)


def test_a_token_is_due_when_it_says_so_and_usable_until_it_expires() -> None:
    held = obtained(SHORT)
    assert held.take() is SHORT

    moments = (BEGIN + 89, BEGIN + 90, BEGIN + 99, BEGIN + 100)
    assert [held.is_due(now) for now in moments] == [False, True, True, True]
    assert [held.is_usable(now) for now in moments] == [True, True, True, False]


def test_a_token_can_be_used_once_however_late_it_is() -> None:
    held = obtained(SHORT)
    late = BEGIN + 1000
    assert (held.is_usable(late), held.is_due(late)) == (True, False)

    held.take()
    assert (held.is_usable(late), held.is_due(late)) == (False, True)


def test_failures_back_off_and_ten_in_a_row_are_enough() -> None:
    failing = tokens()
    waits = []
    for number in range(10):
        assert failing.given_up is None, number
        now = failing.ask_at
        failing.requested()
        failing.record(Failure("503"), now)
        waits.append(failing.ask_at - now)

    assert waits == [5, 7.5, 11.25, 16.875, 25.3125, 30, 30, 30, 30, 30]
    assert failing.given_up == "503"


def test_where_outages_are_sat_out_no_number_of_failures_is_enough() -> None:
    failing = Tokens(None, PollingSettings(), renewable=True, now=BEGIN, chance=lambda: 0.0)
    for _ in range(100):
        failing.record(Failure("503"), BEGIN)

    assert failing.given_up is None


def test_why_no_token_came_is_known_until_one_comes() -> None:
    failing = tokens()
    assert failing.error is None
    failing.record(Failure("503"), BEGIN)
    assert failing.error == "503"
    failing.record(ENDLESS, BEGIN)
    assert failing.error is None


def test_failures_are_no_reason_to_give_up_as_long_as_the_token_can_be_used() -> None:
    held = obtained(SHORT)
    held.take()
    for _ in range(15):
        held.record(Failure("503"), BEGIN + 95)
    assert held.given_up is None

    held.record(Failure("503"), BEGIN + 100)
    assert held.given_up == "503"


def test_a_token_begins_the_row_of_failures_anew() -> None:
    failing = tokens()
    for _ in range(9):
        failing.record(Failure("503"), BEGIN)
    failing.record(ENDLESS, BEGIN)
    failing.record(Failure("503"), BEGIN + 50)

    assert failing.given_up is None
    assert failing.ask_at == BEGIN + 55


def test_a_429_neither_counts_nor_lengthens_the_wait() -> None:
    throttled = tokens()
    for _ in range(20):
        throttled.record(Throttled("429", 0), BEGIN)

    assert (throttled.given_up, throttled.ask_at) == (None, BEGIN + 5)


def test_refused_credentials_stop_the_run() -> None:
    with pytest.raises(CredentialsError, match=r"^wrong client_secret$"):
        tokens().record(Unauthorized("wrong client_secret"), BEGIN)


def test_a_401_for_a_token_that_cannot_be_renewed_stops_the_run() -> None:
    with pytest.raises(CredentialsError, match=r"^401: invalid token$"):
        tokens(ENDLESS, renewable=False).refused(ENDLESS, REFUSED, BEGIN)


def test_a_token_that_was_refused_is_not_used_again() -> None:
    held = obtained(ENDLESS)
    held.refused(ENDLESS, REFUSED, BEGIN)

    assert (held.is_usable(BEGIN), held.is_due(BEGIN)) == (False, True)


def test_a_401_for_the_token_before_leaves_the_one_after_alone() -> None:
    held = obtained(ENDLESS)
    held.refused(SHORT, REFUSED, BEGIN)

    assert (held.is_usable(BEGIN), held.is_due(BEGIN)) == (True, False)


def renewed(at: float) -> Tokens:
    """As they are once the first token was refused and a second one, `ENDLESS`, has come."""
    made = obtained(SHORT)
    made.refused(SHORT, REFUSED, BEGIN)
    made.record(ENDLESS, at)
    return made


def test_a_second_token_that_is_refused_before_it_was_accepted_stops_the_run() -> None:
    second = renewed(BEGIN + 10)

    with pytest.raises(CredentialsError, match=r"^401: invalid token$"):
        second.refused(ENDLESS, REFUSED, BEGIN + 10)


def test_a_second_token_that_was_accepted_may_be_refused_later() -> None:
    second = renewed(BEGIN + 10)
    second.accepted(BEGIN + 10, BEGIN + 11)
    second.refused(ENDLESS, REFUSED, BEGIN + 12)
    assert second.is_due(BEGIN + 13)

    second.record(SHORT, BEGIN + 13)
    with pytest.raises(CredentialsError):
        second.refused(SHORT, REFUSED, BEGIN + 13)


def test_an_answer_that_comes_while_a_401_is_under_way_does_not_vouch_for_the_token() -> None:
    second = renewed(BEGIN + 10)
    second.accepted(BEGIN + 11, BEGIN + 12)

    with pytest.raises(CredentialsError):
        second.refused(ENDLESS, REFUSED, BEGIN + 10)


def test_an_answer_to_a_request_that_was_sent_with_the_first_token_does_not_vouch_for_the_second() -> None:
    second = renewed(BEGIN + 10)
    second.accepted(BEGIN + 9, BEGIN + 11)

    with pytest.raises(CredentialsError):
        second.refused(ENDLESS, REFUSED, BEGIN + 12)


def test_late_401_for_the_first_token_cost_nothing_more() -> None:
    second = renewed(BEGIN + 10)
    for sent_at in range(5):
        second.refused(SHORT, REFUSED, BEGIN + sent_at)

    assert (second.is_usable(BEGIN + 20), second.is_due(BEGIN + 20)) == (True, False)
