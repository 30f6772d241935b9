"""`further-source check`: tries the list, the credentials, the API and the destination, and loads nothing."""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import dlt
from dlt.common.destination.exceptions import DestinationException, DestinationUndefinedEntity

from further_source.api.client import Client
from further_source.command import exit_codes
from further_source.command.failures import as_further_error, hide_tracebacks
from further_source.command.listing import Listed, listed_executions
from further_source.command.signals import Stop
from further_source.console import show
from further_source.destination.ledger import read_ledger
from further_source.exceptions import CredentialsError, FurtherError, ManifestError
from further_source.executions import ExecutionId
from further_source.inbox.store import Inbox
from further_source.pipeline import PipelineSettings, pipeline_settings, set_defaults
from further_source.polling.outcomes import Answered, Refused, Token
from further_source.settings import PIPELINE_NAME, SOURCE_NAME
from further_source.source import check_configured_keys, configured_client, further_source, has_credentials

__all__ = ["run"]


def run(options: argparse.Namespace, stop: Stop) -> int:
    """Prints what was found, a line for each thing tried; exit code 1 where something is not as it should be.

    Raises:
        ConfigurationError: Something is configured wrong; nothing was tried.
    """
    set_defaults()
    hide_tracebacks()
    check_configured_keys()
    lists = listed_executions(options)
    location = options.inbox or dlt.config.get(f"sources.{SOURCE_NAME}.inbox")
    given = {"inbox": location} if location else {}
    further_source(executions=lists.executions, executions_file="", executions_query="", **given)  # finds what is wrong
    settings = pipeline_settings(PIPELINE_NAME, destination=options.destination, dataset_name=options.dataset)
    found: dict[str, dict[str, object]] = {}
    try:
        listed = _complete(lists, settings)
        found["list"] = {"ok": True, "found": f"{len(listed)} executions"}
    except DestinationException as error:
        listed = lists.executions
        found["list"] = {"ok": False, "found": str(as_further_error(error))}
    tried: dict[str, Callable[[], str]] = {
        **({"inbox": partial(_try_inbox, location)} if location else {}),
        "api": partial(_try_api, listed, needed=not location),
        "destination": partial(_try_destination, settings, listed),
    }
    for name, try_it in tried.items():
        try:
            found[name] = {"ok": True, "found": try_it()}
        except Exception as error:
            found[name] = {"ok": False, "found": str(as_further_error(error))}
    if options.json:
        show(json.dumps(found, indent=2))
    else:
        for name, result in found.items():
            show(f"{name:<12} {'ok' if result['ok'] else 'NOT OK':<7} {result['found']}")
    return exit_codes.OK if all(result["ok"] for result in found.values()) else exit_codes.FAILED


def _complete(lists: Listed, settings: PipelineSettings) -> list[ExecutionId]:
    """All executions that are listed; the destination is asked for those that are listed there."""
    if not lists.queries:
        return lists.executions
    if (file := settings.duckdb_file) is not None and not file.exists():
        raise ManifestError(f"executions_query: {file} is not there, and no executions_database is configured")
    with _pipeline(settings) as pipeline:
        return lists.complete(pipeline)


@contextmanager
def _pipeline(settings: PipelineSettings) -> Iterator[dlt.Pipeline]:
    """The pipeline, of which nothing is left behind."""
    with tempfile.TemporaryDirectory() as directory:
        yield replace(settings, pipelines_dir=directory).make()


def _try_inbox(location: str) -> str:
    return f"{len(Inbox(location).names())} files wait to be loaded"


def _try_api(listed: Sequence[ExecutionId], *, needed: bool) -> str:
    """Gets a token where that is to be got, and asks once for the first that is listed."""
    if not needed and not has_credentials():
        return "no credentials: only what is delivered can be loaded"
    with closing(configured_client()) as client:
        token = client.token or _new_token(client)
        got = "" if client.token else "the credentials are accepted; "
        if not listed:
            return f"{got}no execution is listed to be asked for"
        outcome = client.get_execution(listed[0], token)
        if isinstance(outcome, Answered):
            return f"{got}{listed[0]} is {outcome.status}"
        if isinstance(outcome, Refused) and outcome.poll_outcome == "not_found":
            return f"{got}{listed[0]} is not found ({outcome.error})"
        raise FurtherError(f"{got}{listed[0]}: {outcome.error}")


def _new_token(client: Client) -> Token:
    outcome = client.request_token()
    if isinstance(outcome, Token):
        return outcome
    raise CredentialsError(outcome.error)


def _try_destination(settings: PipelineSettings, listed: Sequence[ExecutionId]) -> str:
    """Connects, and looks how many of the list are loaded already."""
    where = f"{settings.destination_name}, dataset {settings.dataset}, {settings.location}"
    if (file := settings.duckdb_file) is not None and not file.exists():
        return f"{where}: {_try_directory(file.parent)}"
    with _pipeline(settings) as pipeline:
        try:
            with pipeline.destination_client() as client:
                if not client.is_storage_initialized():
                    return f"{where}: reached; the dataset is not there yet"
            held = read_ledger(pipeline, listed, settings.table_format).counts().total() if listed else 0
        except DestinationUndefinedEntity:
            return f"{where}: reached; the dataset is not there yet"
    return f"{where}: reached; {held} of {len(listed)} are loaded"


def _try_directory(directory: Path) -> str:
    if not directory.is_dir():
        raise FurtherError(f"{directory}: no such directory")
    with tempfile.TemporaryFile(dir=directory):
        return "the file is not there yet, and can be made"
