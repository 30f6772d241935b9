"""What the command exits with."""

__all__ = ["ALREADY_RUNNING", "FAILED", "NOT_COMPLETED", "OK", "USAGE", "of_signal"]

OK = 0
FAILED = 1
USAGE = 2
NOT_COMPLETED = 3
ALREADY_RUNNING = 75


def of_signal(number: int) -> int:
    """As shells have it, for a process that a signal ended."""
    return 128 + number
