"""`further-source forget`: removes a document for good, and tells what went."""

import argparse
import json
import os
import re
from contextlib import ExitStack
from pathlib import Path

import dlt

from further_source import manifest
from further_source.command import exit_codes
from further_source.command.arguments.receive import VARIABLE
from further_source.command.failures import as_further_error, hide_tracebacks
from further_source.command.signals import Stop
from further_source.console import show
from further_source.exceptions import ConfigurationError, FurtherError
from further_source.forgetting import Forgotten, forget
from further_source.inbox.erasing import Erased, delivered_with
from further_source.inbox.store import Inbox
from further_source.lock import only_load
from further_source.pipeline import PipelineSettings, pipeline_settings, set_defaults
from further_source.settings import PIPELINE_NAME, SOURCE_NAME

__all__ = ["run"]


def run(options: argparse.Namespace, stop: Stop) -> int:
    """Forgets what is named, and whatever an earlier call that was interrupted has left.

    A signal ends it at once: repeated, it does the rest.
    """
    set_defaults()
    hide_tracebacks()
    executions = list(manifest.read_executions(options.ids, origin="arguments"))
    if options.external_id == "":
        raise ConfigurationError("--external-id is empty")
    inboxes = [Inbox(location) for location in _inboxes(options)]
    settings = pipeline_settings(PIPELINE_NAME, destination=options.destination, dataset_name=options.dataset)
    is_new = (file := settings.duckdb_file) is not None and not file.exists()
    if is_new and options.external_id and not any(delivered_with(one, options.external_id) for one in inboxes):
        raise FurtherError("nothing is loaded into this dataset yet")
    with ExitStack() as locks:
        shards = _shards(settings, options)
        for one in (settings, *shards):
            locks.enter_context(only_load(one.pipeline_name, one.pipelines_dir))
        pipeline = settings.make()
        try:
            made = [shard.make() for shard in shards]
            forgotten = forget(pipeline, executions, options.external_id, shards=made, inboxes=inboxes)
        except Exception as error:
            raise as_further_error(error, pipeline) from error
    show(json.dumps(_document(forgotten, settings), indent=2) if options.json else _text(forgotten, settings))
    return exit_codes.OK


def _inboxes(options: argparse.Namespace) -> list[str]:
    """Those that are given, and those that loads and the receiver are configured with."""
    configured: tuple[str | None, ...] = (
        dlt.config.get(f"sources.{SOURCE_NAME}.inbox"),
        os.environ.get(f"{VARIABLE}INBOX"),
    )
    return list(dict.fromkeys([*(options.inbox or ()), *filter(None, configured)]))


def _shards(settings: PipelineSettings, options: argparse.Namespace) -> list[PipelineSettings]:
    """The parts of the pipeline that were ever loaded on this machine."""
    pattern = re.compile(rf"{re.escape(settings.pipeline_name)}_shard_([0-9]+)_of_([0-9]+)")
    matches = [pattern.fullmatch(path.name) for path in sorted(Path(settings.pipelines_dir).glob("*")) if path.is_dir()]
    return [
        pipeline_settings(
            PIPELINE_NAME,
            destination=options.destination,
            dataset_name=options.dataset,
            shard=(int(match[1]), int(match[2])),
        )
        for match in matches
        if match
    ]


def _text(forgotten: Forgotten, settings: PipelineSettings) -> str:
    executions = [f"{len(forgotten.executions)} executions forgotten: no later load brings them back"]
    executions += [f"  {execution}" for execution in forgotten.executions]
    rows = [f"  {count:>7} {table}" for table, count in sorted(forgotten.rows.items())]
    copies = f"{len(forgotten.copies)} copies deleted in {settings.pipelines_dir}"
    inboxes = [line for inbox in forgotten.inboxes for line in _of_inbox(inbox)]
    return "\n".join(
        [
            *executions,
            *(["rows deleted", *rows] if rows else ["no row was loaded"]),
            copies,
            *(inboxes or ["no inbox is given or configured, so none was looked at"]),
            forgotten.rest,
        ]
    )


def _of_inbox(erased: Erased) -> list[str]:
    deleted = f"{erased.deliveries} deliveries deleted in {erased.location}"
    unclear = [f"  whose it is cannot be told, so it was left: look at it yourself: {n}" for n in erased.unclear]
    return [deleted, *unclear]


def _document(forgotten: Forgotten, settings: PipelineSettings) -> dict[str, object]:
    return {
        "executions": [execution._asdict() for execution in forgotten.executions],
        "rows": dict(forgotten.rows),
        "copies": [str(path) for path in forgotten.copies],
        "inboxes": [inbox._asdict() for inbox in forgotten.inboxes],
        "rest": forgotten.rest,
        "destination": settings.destination_name,
        "dataset": settings.dataset,
        "location": settings.location,
    }
