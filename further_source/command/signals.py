"""SIGINT and SIGTERM: the first stops polling, the second ends the process."""

import os
import signal

from further_source.command.exit_codes import of_signal

__all__ = ["Stop"]


class Stop:
    """True once SIGINT or SIGTERM came. A second one, or one before there is anything to load, ends the process."""

    signal_number = 0
    anything_to_load = False

    def __call__(self) -> bool:
        return self.signal_number != 0

    def install(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: object) -> None:
        if self.signal_number or not self.anything_to_load:
            os._exit(of_signal(number))
        self.signal_number = number
