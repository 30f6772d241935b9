"""Checks configured values before anything is asked, and gathers them into settings."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from further_source.api.client import ClientCredentials, StaticToken
from further_source.exceptions import ConfigurationError
from further_source.settings import POLLING_PRESETS, PollingSettings
from further_source.text import shown

__all__ = ["check_credentials", "check_number", "check_polling", "configured_list", "parse_list"]


def check_credentials(
    access_token: str | None, client_id: str | None, client_secret: str | None
) -> StaticToken | ClientCredentials:
    """The credentials to use.

    Raises:
        ConfigurationError: None, half of a pair, or a pair and a token.
    """
    if access_token and (client_id or client_secret):
        raise ConfigurationError("access_token and client_id/client_secret are both configured: remove one of them")
    if access_token:
        return StaticToken(access_token)
    if client_id and client_secret:
        return ClientCredentials(client_id, client_secret)
    if client_id or client_secret:
        missing = "client_secret" if client_id else "client_id"
        raise ConfigurationError(f"{missing} is not configured: client_id and client_secret go together")
    raise ConfigurationError(
        "no credentials: configure client_id and client_secret (or access_token) for sources.further_source, for "
        "example as SOURCES__FURTHER_SOURCE__CLIENT_ID and SOURCES__FURTHER_SOURCE__CLIENT_SECRET"
    )


def check_number(key: str, value: float, *, least: float, included: bool = True) -> float:
    """`value` as it is.

    Raises:
        ConfigurationError: It is no finite number, or below `least` (or equal, where that is not `included`).
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if is_number and (value > least or (included and value == least)):
        return value
    limit = f"{'at least' if included else 'above'} {least:g}"
    raise ConfigurationError(f"{key} is {shown(value)}: it must be a number {limit}")


def check_polling(
    polling: str,
    *,
    initial_interval: float | None,
    backoff_factor: float | None,
    max_interval: float | None,
    max_wait: float,
    max_requests_per_second: float,
    max_workers: int,
    outage_patience: float,
    terminal_statuses: Any,
) -> PollingSettings:
    """A preset with what is configured over it.

    Raises:
        ConfigurationError: A value that cannot work; the message names its key.
    """
    preset = POLLING_PRESETS.get(polling) if isinstance(polling, str) else None
    if preset is None:
        raise ConfigurationError(f"polling is {shown(polling)}: it must be one of {', '.join(POLLING_PRESETS)}")
    given = {
        "initial_interval": initial_interval,
        "backoff_factor": backoff_factor,
        "max_interval": max_interval,
    }
    preset = replace(preset, **{key: value for key, value in given.items() if value is not None})
    check_number("initial_interval", preset.initial_interval, least=0, included=False)
    check_number("backoff_factor", preset.backoff_factor, least=1)
    check_number("max_interval", preset.max_interval, least=0, included=False)
    if preset.initial_interval > preset.max_interval:
        raise ConfigurationError(
            f"initial_interval {preset.initial_interval:g} is above max_interval {preset.max_interval:g}: "
            "lower one or raise the other"
        )
    check_number("max_wait", max_wait, least=0)
    check_number("max_requests_per_second", max_requests_per_second, least=0.001)
    if not isinstance(max_workers, int):
        raise ConfigurationError(f"max_workers is {shown(max_workers)}: it must be a whole number")
    check_number("max_workers", max_workers, least=1)
    check_number("outage_patience", outage_patience, least=0)
    return PollingSettings(
        initial_interval=preset.initial_interval,
        backoff_factor=preset.backoff_factor,
        max_interval=preset.max_interval,
        max_wait=max_wait,
        max_requests_per_second=max_requests_per_second,
        max_workers=max_workers,
        outage_patience=outage_patience,
        terminal_statuses=_check_statuses(terminal_statuses),
    )


def _check_statuses(statuses: Any) -> frozenset[str]:
    listed = parse_list("terminal_statuses", statuses)
    if not isinstance(listed, Iterable):
        listed = [listed]
    checked = set()
    for status in listed:
        name = status.strip().lower() if isinstance(status, str) else ""
        if not name or name == "running" or "," in name:
            raise ConfigurationError(f"terminal_statuses holds {shown(status)}, which is no status that ends polling")
        checked.add(name)
    if not checked:
        raise ConfigurationError("terminal_statuses is empty: polling would never end")
    return frozenset(checked)


def configured_list(key: str, value: Any) -> Any:
    """A list as a provider of configuration has it, empty where it has none.

    A table is none either: it holds what dlt reads for a resource of this name.
    """
    return () if value is None or isinstance(value, Mapping) else parse_list(key, value)


def parse_list(key: str, value: Any) -> Any:
    """A list configured as text (an environment variable holds JSON, or one item) as a list; else as it is.

    Raises:
        ConfigurationError: It starts like a JSON list and is none.
    """
    if not isinstance(value, str):
        return value
    text = value.strip()
    if not text.startswith("["):
        return [text] if text else []
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"{key} is no JSON list: {error}") from None
