"""The arguments of the sandbox's command."""

import argparse
import math

__all__ = ["DEFAULT_PORT", "DESCRIPTION", "add_arguments"]

DEFAULT_PORT = 8765
DESCRIPTION = "Serves a local stand-in of the Further AI API."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the sandbox's arguments to a parser."""
    parser.add_argument(
        "--port", type=_port, default=DEFAULT_PORT, help=f"port on 127.0.0.1, 0 for any ({DEFAULT_PORT})"
    )
    parser.add_argument(
        "--requests-per-second", type=_rate, metavar="N", help="answer 429 beyond so many requests (no limit)"
    )
    parser.add_argument(
        "--list", action="store_true", help="print the demo executions, one WORKFLOW_ID/EXECUTION_ID a line"
    )


def _port(text: str) -> int:
    if not (text.isdecimal() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is no port")
    return int(text)


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return rate
