"""What the value of an option has to be; wrong ones are told in the parser's one line."""

import re
from argparse import ArgumentTypeError
from datetime import datetime, timezone

from further_source.settings import POLLING_PRESETS

__all__ = ["count", "inner_share", "moment", "preset", "seconds", "shard", "share", "whole"]


def shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9][0-9]{0,5})/([1-9][0-9]{0,5})", text)
    if match is None or int(match[1]) > int(match[2]):
        raise ArgumentTypeError(f"{text!r} is no K/N with K from 1 to N")
    return int(match[1]), int(match[2])


def whole(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found <= 3600:
        raise ArgumentTypeError(f"{text!r} is no number of seconds up to 3600")
    return found


def moment(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is no date like 2026-01-31") from None
    return found.replace(tzinfo=timezone.utc) if found.tzinfo is None else found.astimezone(timezone.utc)


def share(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found <= 1:
        raise ArgumentTypeError(f"{text!r} is no number from 0 to 1")
    return found


def inner_share(text: str) -> float:
    found = share(text)
    if found in (0, 1):
        raise ArgumentTypeError(f"{text!r} is not between 0 and 1")
    return found


def count(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text):
        raise ArgumentTypeError(f"{text!r} is no whole number from 1")
    return int(text)


def preset(text: str) -> str:
    if text not in POLLING_PRESETS:
        raise ArgumentTypeError(f"{text!r} is no preset; it must be one of {', '.join(POLLING_PRESETS)}")
    return text
