"""Waits that grow, and differ a little from one run to the next."""

from collections.abc import Callable

from further_source.settings import MAX_JITTER, PollingSettings

__all__ = ["Backoff", "Chance", "jittered", "next_interval"]

Chance = Callable[[], float]
"""A number from 0 to 1, another one at each call."""


def next_interval(interval: float, settings: PollingSettings) -> float:
    """The wait after the one of `interval` seconds."""
    return min(interval * settings.backoff_factor, settings.max_interval)


def jittered(interval: float, chance: Chance) -> float:
    """A wait of `interval` seconds or a little less, so that runs which failed together do not go on together."""
    return interval * (1 - MAX_JITTER * chance())


class Backoff:
    """The waits after one failure, two in a row, three: as long as those of polling, or a little less."""

    def __init__(self, settings: PollingSettings, chance: Chance) -> None:
        self._settings = settings
        self._chance = chance
        self._interval = settings.initial_interval

    @property
    def interval(self) -> float:
        """Seconds of the next wait, without jitter."""
        return self._interval

    def lengthen(self) -> float:
        """Seconds to wait this time; the next wait is longer."""
        wait = jittered(self._interval, self._chance)
        self._interval = next_interval(self._interval, self._settings)
        return wait

    def restart(self) -> None:
        self._interval = self._settings.initial_interval
