"""The numbers of docs/scaling.md that are computed, computed again in virtual time."""

from further_source.executions import ExecutionId
from further_source.polling.outcomes import Answered, Outcome, Token
from further_source.polling.poll import poll_executions
from further_source.settings import POLLING_PRESETS, PollingSettings
from tests.support.documents import PROJECT, Document
from tests.support.virtual import START_UTC, FakeApi, VirtualClock, VirtualWorkers, listed

SCALING = Document(PROJECT / "docs" / "scaling.md")
REQUESTS_A_DAY = 864_000
LATENCY = 0.3  # seconds
SHORTEST, LONGEST = 60, 180  # seconds an execution runs
GOLDEN = 0.6180339887  # its multiples modulo 1 are spread evenly


class TimedApi(FakeApi):
    """Executions that all begin at the start and end after so many seconds."""

    def __init__(self, clock: VirtualClock, ends_at: dict[ExecutionId, float]) -> None:
        super().__init__(clock, {})
        self._ends_at = ends_at

    def get_execution(self, execution: ExecutionId, token: Token) -> Outcome:
        status = "completed" if self._clock.since_start >= self._ends_at[execution] else "running"
        outcome = Answered(status, {"status": status}, size=100)
        self._log(execution, token, outcome, LATENCY)
        return outcome


def simulate(preset: str, count: int) -> tuple[float, float, float]:
    """Requests per execution, mean seconds from an execution's end to its answer, and seconds of the run."""
    intervals = POLLING_PRESETS[preset]
    settings = PollingSettings(intervals.initial_interval, intervals.backoff_factor, intervals.max_interval)
    executions = listed(count)
    ends_at = {
        execution: SHORTEST + (LONGEST - SHORTEST) * (number * GOLDEN % 1)
        for number, execution in enumerate(executions)
    }
    clock = VirtualClock()
    api = TimedApi(clock, ends_at)
    delay = 0.0
    for ended in poll_executions(
        executions, api, settings, workers=VirtualWorkers(clock, api), clock=clock, now_utc=lambda: START_UTC
    ):
        assert ended.poll_outcome == "completed"
        delay += clock.since_start - ends_at[ended.execution]
    return len(api.sent) / count, delay / count, clock.since_start


def numbers(cells: list[str]) -> list[float]:
    return [float(cell.replace(",", "")) for cell in cells]


def test_requests_per_execution_are_as_documented() -> None:
    presets, _ = SCALING.tables("One poller")
    assert [row[0].strip("`") for row in presets[1:]] == list(POLLING_PRESETS)

    for name, *cells in presets[1:]:
        requests, delay, a_day = numbers(cells)
        simulated, simulated_delay, _ = simulate(name.strip("`"), 20)
        assert abs(requests - simulated) <= 0.05 + 1e-9, name
        assert abs(delay - simulated_delay) <= 0.05 + 1e-9, name
        assert a_day == round(REQUESTS_A_DAY / simulated, -3), name


def test_long_lists_cost_less_as_documented() -> None:
    _, lists = SCALING.tables("One poller")

    for row in lists[1:]:
        count, requests, minutes = numbers(row)
        simulated, _, seconds = simulate("default", int(count))
        assert (requests, minutes) == (round(simulated, 1), round(seconds / 60, 1)), count


def test_the_day_has_as_many_requests_as_documented() -> None:
    assert PollingSettings().max_requests_per_second * 86_400 == REQUESTS_A_DAY
    assert f"{REQUESTS_A_DAY:,} requests a day" in SCALING.text
