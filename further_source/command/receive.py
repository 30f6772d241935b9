"""`further-source receive`: stores webhook deliveries in an inbox."""

import argparse
import ipaddress
import os
from contextlib import closing
from pathlib import Path

from further_source.command import exit_codes
from further_source.command.arguments.receive import API_KEY_VARIABLES
from further_source.command.signals import Stop
from further_source.exceptions import ConfigurationError, FurtherError
from further_source.text import shown

try:
    from further_source.receiver.app import Limits, receiver_app
    from further_source.receiver.authentication import Anyone, ApiKeys, Authentication, BearerTokens
    from further_source.receiver.serving import listen, serve
    from further_source.receiver.storage import Storage, reason_of
except ImportError as error:
    raise ConfigurationError(
        f"receive needs packages that are not here ({error.name}): install further_source[receiver]"
    ) from None

__all__ = ["run"]


def run(options: argparse.Namespace, stop: Stop) -> int:
    """Receives until a signal comes.

    Raises:
        ConfigurationError: An option has a value that cannot work.
        FurtherError: The inbox cannot be written to, or the port cannot be had.
    """
    authentication = _authentication(options)
    _check_host(options)
    if options.hard_max_bytes < options.max_bytes:
        raise ConfigurationError(f"--hard-max-bytes {options.hard_max_bytes} is below --max-bytes {options.max_bytes}")
    inbox = Path(options.inbox)
    if not inbox.is_dir():
        raise ConfigurationError(f"--inbox {shown(options.inbox)}: no such directory")
    limits = Limits(options.hard_max_bytes, options.body_timeout, options.max_concurrency)
    try:
        storage = Storage(inbox, max_bytes=options.max_bytes)
    except OSError as error:
        raise FurtherError(f"--inbox {shown(options.inbox)}: {reason_of(error)}") from None
    with closing(storage):
        try:
            listener = listen(options.host, options.port)
        except OSError as error:
            raise FurtherError(f"cannot listen on {options.host}:{options.port}: {reason_of(error)}") from None
        with listener:
            serve(
                receiver_app(storage, authentication, limits),
                listener,
                body_timeout=options.body_timeout,
                welcome=_welcome(options.host, listener.getsockname()[1], inbox),
            )
    return exit_codes.OK


def _welcome(host: str, port: int, inbox: Path) -> str:
    place = f"[{host}]" if ":" in host else host
    return f"Receives deliveries on http://{place}:{port}/ into {inbox}. Ctrl-C stops it."


def _authentication(options: argparse.Namespace) -> Authentication:
    keys = options.api_key or [os.environ[name] for name in API_KEY_VARIABLES if os.environ.get(name)]
    by_key = {"--api-key-header": options.api_key_header, "--api-key": keys}
    by_token = {"--issuer": options.issuer, "--audience": options.audience, "--jwks-url": options.jwks_url}
    ways = [any(by_key.values()), any(by_token.values()), options.accept_from_anyone]
    if sum(ways) > 1:
        raise ConfigurationError("of --api-key, --jwks-url and --accept-from-anyone only one can be given")
    if sum(ways) == 0:
        raise ConfigurationError(
            "nobody may deliver: give --api-key-header and --api-key, or --issuer, --audience and --jwks-url"
        )
    for name, value in {**(by_key if ways[0] else {}), **(by_token if ways[1] else {})}.items():
        if not value:
            raise ConfigurationError(f"{name} is missing: {', '.join(by_key if ways[0] else by_token)} go together")
    if ways[0]:
        return ApiKeys(options.api_key_header, keys)
    if ways[1]:
        return BearerTokens(
            issuer=options.issuer,
            audience=options.audience,
            jwks_url=options.jwks_url,
            algorithms=options.algorithm or ["RS256"],
        )
    return Anyone()


def _check_host(options: argparse.Namespace) -> None:
    """Beyond this machine, keys and documents must not go in clear."""
    try:
        is_loopback = ipaddress.ip_address(options.host).is_loopback
    except ValueError:
        is_loopback = options.host == "localhost"
    if not is_loopback and not options.behind_tls:
        raise ConfigurationError(
            f"--host {shown(options.host)} is reached from other machines: have a proxy end TLS in front of it, and "
            "say so with --behind-tls"
        )
