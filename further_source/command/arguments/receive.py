"""The arguments of `receive`; some can be set in the environment instead."""

import argparse
import os
from typing import Any

from further_source.command.arguments import types
from further_source.usage import port

__all__ = ["API_KEY_VARIABLES", "RECEIVE", "VARIABLE", "add_receive"]

RECEIVE = "Receives webhook deliveries over HTTP, and stores them in an inbox."
VARIABLE = "FURTHER_RECEIVER_"
API_KEY_VARIABLES = (f"{VARIABLE}API_KEY", f"{VARIABLE}API_KEY_2")


def add_receive(parser: argparse.ArgumentParser) -> None:
    def add(option: str, meaning: str, **settings: Any) -> None:
        variable = VARIABLE + option.removeprefix("--").replace("-", "_").upper()
        parser.add_argument(option, help=meaning, default=os.environ.get(variable) or None, **settings)

    inbox = os.environ.get(f"{VARIABLE}INBOX")
    parser.add_argument("--inbox", metavar="DIR", required=not inbox, default=inbox, help="where deliveries are stored")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=port, default=8080, help="port, 0 for any (8080)")
    parser.add_argument("--behind-tls", action="store_true", help="a proxy in front ends TLS: allows any --host")
    add("--api-key-header", "header that holds the key", metavar="NAME")
    parser.add_argument(
        "--api-key", metavar="VALUE", action="append", help="a key that is taken; twice where keys are rotated"
    )
    add("--issuer", "whom bearer tokens are from", metavar="NAME")
    add("--audience", "whom bearer tokens are for", metavar="NAME")
    add("--jwks-url", "the public keys that bearer tokens are verified with", metavar="URL")
    parser.add_argument(
        "--algorithm", metavar="NAME", action="append", help="with which they may be signed; several times (RS256)"
    )
    parser.add_argument(
        "--accept-from-anyone", action="store_true", help="no key: whoever reaches the port can write into your tables"
    )
    parser.add_argument(
        "--max-bytes", type=types.whole, default=16_000_000, metavar="N", help="larger goes to quarantine (16000000)"
    )
    parser.add_argument(
        "--hard-max-bytes", type=types.whole, default=100_000_000, metavar="N", help="larger is refused (100000000)"
    )
    parser.add_argument(
        "--body-timeout", type=types.seconds, default=20.0, metavar="SECONDS", help="for one whole delivery (20)"
    )
    parser.add_argument(
        "--max-concurrency", type=types.whole, default=2_000, metavar="N", help="deliveries received at once (2000)"
    )
