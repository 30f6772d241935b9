"""Waits that grow, and differ a little from one run to the next."""

from collections.abc import Callable

from further_source.settings import MAX_JITTER, PollingSettings

__all__ = ["Backoff", "Chance", "jittered", "next_interval"]

Chance = Callable[[], float]
"""Gives a number from 0 to 1, another one at each call."""


def next_interval(interval: float, settings: PollingSettings) -> float:
    """The wait after the one of `interval` seconds."""
    return min(interval * settings.backoff_factor, settings.max_interval)


def jittered(interval: float, chance: Chance) -> float:
    """`interval` seconds or a little less, so that runs that failed at the same moment do not go on at the same."""
    return interval * (1 - MAX_JITTER * chance())


class Backoff:
    """The waits after failures in a row. They grow like the intervals of polling, and have jitter."""

    def __init__(self, settings: PollingSettings, chance: Chance) -> None:
        self._settings = settings
        self._chance = chance
        self._interval = settings.initial_interval

    @property
    def interval(self) -> float:
        """Seconds of the next wait without jitter."""
        return self._interval

    def next_wait(self) -> float:
        """Seconds to wait after this failure; after the next one it is longer."""
        wait = jittered(self._interval, self._chance)
        self._interval = next_interval(self._interval, self._settings)
        return wait

    def restart(self) -> None:
        """The row of failures is over."""
        self._interval = self._settings.initial_interval
