"""`further-source review`: a queue of cells out to people, and their verdicts back."""

import argparse
import getpass
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from further_source.command import exit_codes
from further_source.command.failures import as_further_error, hide_tracebacks
from further_source.command.outfile import out_file
from further_source.command.signals import Stop
from further_source.console import show, tell
from further_source.exceptions import ConfigurationError
from further_source.lock import only_server
from further_source.pipeline import pipeline_settings, set_defaults
from further_source.review.cells import ReviewedCell, new_queue
from further_source.review.files import FORMATS, read_queue, write_queue
from further_source.review.importing import RowErrors, import_reviews
from further_source.review.queue import Queue
from further_source.review.selecting import cells_below, cells_below_thresholds, sampled_cells
from further_source.review.server import serve
from further_source.review.store import ReviewStore
from further_source.settings import PIPELINE_NAME

__all__ = ["open_store", "run"]

_FAULTS_SHOWN = 50
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def run(options: argparse.Namespace, stop: Stop) -> int:
    """Writes a queue, adds the verdicts of one, or serves the page."""
    set_defaults()
    hide_tracebacks()
    actions = {"export": _export, "import": _import, "serve": _serve}
    return actions[options.action](options)


def open_store(options: argparse.Namespace) -> ReviewStore:
    """The reviews of the dataset that the options name, with their tables and views made.

    Raises:
        ConfigurationError: The destination is configured wrong, or knows no SQL.
        FurtherError: Nothing is loaded, or the destination failed.
    """
    settings = pipeline_settings(PIPELINE_NAME, destination=options.destination, dataset_name=options.dataset)
    file = settings.duckdb_file
    if file is not None and not file.exists():
        raise ConfigurationError(f"{file}: no such file; nothing is loaded yet")
    store = ReviewStore(settings.make())
    try:
        store.prepare()
    except Exception as error:
        raise as_further_error(error) from error
    return store


def _export(options: argparse.Namespace) -> int:
    path = out_file(options.out)
    if path.suffix.lower() not in FORMATS:
        raise ConfigurationError(f"--out: {path.name} ends with none of {', '.join(FORMATS)}")
    store = open_store(options)
    cells = _queue(store, options)
    try:
        write_queue(path, cells, new_queue(), sampled=options.sample is not None)
    except OSError as error:
        raise ConfigurationError(f"--out: {path}: {(error.strerror or str(error)).lower()}") from None
    if options.json:
        show(json.dumps({"cells": len(cells), "file": str(path)}, indent=2))
    else:
        show(f"{len(cells)} cells to review in {path}")
    return exit_codes.OK


def _queue(store: ReviewStore, options: argparse.Namespace) -> Sequence[ReviewedCell]:
    if options.sample is not None:
        return sampled_cells(store, options.sample)
    if options.below is not None:
        return cells_below(store, options.below, options.limit)
    return cells_below_thresholds(store, options.limit)


def _import(options: argparse.Namespace) -> int:
    path = Path(options.file)
    rows = read_queue(path)
    store = open_store(options)
    try:
        done = import_reviews(store, rows, options.reviewer or getpass.getuser())
    except RowErrors as errors:
        for line in errors.lines[:_FAULTS_SHOWN]:
            tell("further-source", f"{path}: {line}")
        if (more := len(errors.lines) - _FAULTS_SHOWN) > 0:
            tell("further-source", f"{path}: {more} more faults")
        return exit_codes.USAGE
    except Exception as error:
        raise as_further_error(error) from error
    conflicts = store.rows("SELECT conflict, count(*) FROM {review_conflicts} GROUP BY conflict ORDER BY conflict")
    if options.json:
        show(json.dumps({**vars(done), "conflicts": dict(conflicts)}, indent=2))
        return exit_codes.OK
    show(f"{done.added:>9} reviews added\n{done.known:>9} known already\n{done.left_open:>9} rows without a verdict")
    if done.stale:
        show(f"{done.stale:>9} of the added are of values that a load has changed since: kept, and not applied")
    for conflict, count in conflicts:
        show(f"{count:>9} {conflict} in review_conflicts")
    return exit_codes.OK


def _serve(options: argparse.Namespace) -> int:
    settings = pipeline_settings(PIPELINE_NAME, destination=options.destination, dataset_name=options.dataset)
    with only_server(settings.pipelines_dir, settings.location, settings.dataset):
        return _serve_alone(options)


def _serve_alone(options: argparse.Namespace) -> int:
    store = open_store(options)
    cells = _queue(store, options)
    named = f"[{options.host}]" if ":" in options.host else options.host
    hosts = [*_LOOPBACK, *([] if named in _LOOPBACK else [named]), *options.allow_host]
    try:
        serve(
            Queue(store, cells, sampled=options.sample is not None),
            options.host,
            options.port,
            hosts,
            _tell_of(len(cells)),
        )
    except Exception as error:
        raise as_further_error(error) from error
    return exit_codes.OK


def _tell_of(count: int) -> Callable[[str], None]:
    return lambda url: show(f"{count} cells to review at {url}")
