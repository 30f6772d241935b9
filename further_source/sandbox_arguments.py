"""The arguments of the sandbox's command, outside its package: importing that would make every `--help` slower."""

import argparse
import math
from urllib.parse import urlsplit

from further_source.usage import port

__all__ = ["DEFAULT_PORT", "DESCRIPTION", "PUSH_FAULTS", "PUSH_FORMATS", "add_arguments"]

DEFAULT_PORT = 8765
DESCRIPTION = "Serves a local stand-in of the Further AI API."

PUSH_FORMATS = ("url", "inline")
PUSH_FAULTS = ("doubled", "reordered", "dropped", "expired", "truncated")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the sandbox's arguments to a parser."""
    parser.add_argument(
        "--port", type=port, default=DEFAULT_PORT, help=f"port on 127.0.0.1, 0 for any ({DEFAULT_PORT})"
    )
    parser.add_argument(
        "--requests-per-second", type=_rate, metavar="N", help="answer 429 beyond so many requests (no limit)"
    )
    parser.add_argument("--push", metavar="URL", type=_endpoint, help="post executions to this endpoint as they end")
    parser.add_argument(
        "--push-format", metavar="FORMAT", choices=PUSH_FORMATS, default="url", help="url or inline (url)"
    )
    parser.add_argument(
        "--push-header", metavar="NAME:VALUE", type=_header, action="append", help="sent with each, as the key"
    )
    parser.add_argument(
        "--push-faults", metavar="KINDS", type=_faults, default=(), help=f"what goes wrong, of {','.join(PUSH_FAULTS)}"
    )
    parser.add_argument(
        "--list", action="store_true", help="print the demo executions, one WORKFLOW_ID/EXECUTION_ID a line"
    )


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return rate


def _endpoint(text: str) -> str:
    try:
        url = urlsplit(text)
        url.port  # noqa: B018  raises where it is none
    except ValueError:
        url = urlsplit("")
    if url.scheme not in ("http", "https") or not url.hostname:
        raise argparse.ArgumentTypeError(f"{text!r} is no http(s) URL")
    return text


def _header(text: str) -> tuple[str, str]:
    name, colon, value = (part.strip() for part in text.partition(":"))
    if not (name and colon and value and f"{name}{value}".isprintable()):
        raise argparse.ArgumentTypeError("it is no NAME:VALUE")  # the value may be a key
    return name, value


def _faults(text: str) -> tuple[str, ...]:
    kinds = tuple(dict.fromkeys(kind.strip() for kind in text.split(",") if kind.strip()))
    for kind in kinds:
        if kind not in PUSH_FAULTS:
            raise argparse.ArgumentTypeError(f"{kind!r} is none of {', '.join(PUSH_FAULTS)}")
    return kinds
