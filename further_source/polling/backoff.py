"""Waits that grow."""

from further_source.settings import PollingSettings

__all__ = ["Backoff", "next_interval"]


def next_interval(interval: float, settings: PollingSettings) -> float:
    """The wait after the one of `interval` seconds."""
    return min(interval * settings.backoff_factor, settings.max_interval)


class Backoff:
    """The waits after one failure, two in a row, three: as long as those of polling."""

    def __init__(self, settings: PollingSettings) -> None:
        self._settings = settings
        self._interval = settings.initial_interval

    @property
    def interval(self) -> float:
        """Seconds of the wait that `lengthen` would return, which stays the same."""
        return self._interval

    def lengthen(self) -> float:
        """Seconds to wait this time; the next wait is longer."""
        interval = self._interval
        self._interval = next_interval(interval, self._settings)
        return interval

    def restart(self) -> None:
        self._interval = self._settings.initial_interval
