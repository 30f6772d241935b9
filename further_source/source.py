"""The dlt source: the only module with dlt's decorators."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Optional

import dlt
from dlt.common.configuration import with_config
from dlt.common.typing import TSecretStrValue
from dlt.extract import DltResource

from further_source import configuration, manifest
from further_source.api.client import Client
from further_source.run import Plan, pages_of_load
from further_source.settings import MAX_ANSWER_BYTES, PRODUCTION_URL, SOURCE_NAME

if TYPE_CHECKING:
    from further_source.records import Page, WideRecords

__all__ = ["configured_client", "further_source", "rebuilding_source"]


@dlt.source(name=SOURCE_NAME, section=SOURCE_NAME)
def further_source(
    executions: object = None,  # of Any dlt would ask for its truth, and a series has none
    executions_file: Optional[str] = None,  # noqa: UP045  dlt reads these hints
    base_url: str = PRODUCTION_URL,
    access_token: Optional[TSecretStrValue] = None,  # noqa: UP045
    client_id: Optional[TSecretStrValue] = None,  # noqa: UP045
    client_secret: Optional[TSecretStrValue] = None,  # noqa: UP045
    polling: str = "default",
    initial_interval: Optional[float] = None,  # noqa: UP045
    backoff_factor: Optional[float] = None,  # noqa: UP045
    max_interval: Optional[float] = None,  # noqa: UP045
    max_wait: float = 600,
    max_requests_per_second: float = 10,
    max_workers: int = 8,
    request_timeout: float = 60,
    max_answer_bytes: int = MAX_ANSWER_BYTES,
    outage_patience: float = 900,
    commit_interval: float = 60,
    terminal_statuses: Optional[Any] = ("completed", "failed"),  # noqa: UP045  plain Any would be a tuple to dlt
    row_tables: bool = True,
    reload: bool = False,
) -> list[DltResource]:
    """Polls the listed executions to completion; yields `executions`, `steps`, `cells` and `rows` (`rows_…`).

    Every argument can be given, or configured in section `sources.further_source`.

    Args:
        executions: `"WORKFLOW_ID/EXECUTION_ID"` texts, pairs, or mappings with `workflow_id` and `execution_id` or
            `workflow_execution_id`; any iterable of them.
        executions_file: Path or fsspec URL of a list of the same: `.csv` with a header, `.jsonl`, or lines. Adds to
            `executions`; what is listed twice is asked once.
        base_url: The API; `http://` only for loopback hosts.
        access_token: A token obtained elsewhere.
        client_id: With `client_secret`, gets and renews tokens.
        client_secret: See `client_id`.
        polling: Preset of the three that follow: `default`, `simple`, `standard`, `complex`, `bulk` or `steady`.
        initial_interval: Seconds from an execution's first answer to its second request.
        backoff_factor: Each later wait is so many times the one before.
        max_interval: The longest wait in seconds.
        max_wait: Seconds one execution is waited for, from its own first answer; 0 asks each once.
        max_requests_per_second: One budget for all requests of the run, token requests included.
        max_workers: Requests in flight.
        request_timeout: Seconds for one whole request, body included.
        max_answer_bytes: Inflated size past which an answer is `invalid`.
        outage_patience: Seconds that an outage of the API as a whole is sat out before anything is `unreachable`.
        commit_interval: Seconds after which `run_in_slices` loads what has arrived.
        terminal_statuses: Statuses that end polling, in any case; other ones than `completed` count as failed.
        row_tables: Whether to build the wide `rows_…` tables.
        reload: Ask again for what is loaded, and replace it.

    Raises:
        ConfigurationError: A value that cannot work, or a list that cannot be read. Nothing has been asked.
        CredentialsError: Out of `pipeline.run`, where the API refuses the credentials: nothing of that run is loaded.
            `run_in_slices` loads what had arrived before it raises.
    """
    settings = configuration.check_polling(
        polling,
        initial_interval=initial_interval,
        backoff_factor=backoff_factor,
        max_interval=max_interval,
        max_wait=max_wait,
        max_requests_per_second=max_requests_per_second,
        max_workers=max_workers,
        outage_patience=outage_patience,
        terminal_statuses=terminal_statuses,
    )
    configuration.check_number("request_timeout", request_timeout, least=0, included=False)
    configuration.check_number("max_answer_bytes", max_answer_bytes, least=1)
    configuration.check_number("commit_interval", commit_interval, least=0)
    make_client = partial(
        Client,
        base_url,
        configuration.check_credentials(access_token, client_id, client_secret),
        request_timeout=request_timeout,
        max_workers=max_workers,
        max_answer_bytes=max_answer_bytes,
    )
    make_client().close()  # finds what cannot work before anything is asked
    listed = manifest.merge_executions(
        manifest.read_executions(
            configuration.parse_list("executions", _configured_executions() if executions is None else executions)
        ),
        manifest.read_executions_file(executions_file) if executions_file else (),
    )
    plan = Plan(listed, make_client, settings, reload=reload, commit_interval=commit_interval)
    return _resources(plan, row_tables=row_tables)


@dlt.source(name=SOURCE_NAME, section=SOURCE_NAME)
def rebuilding_source(pages: Callable[[], Iterator["WideRecords"]]) -> DltResource:
    """The resource `rows` alone, of records that are made from what is loaded."""

    @dlt.resource(name="rows")
    def rows() -> Iterator[Any]:
        for page in pages():
            yield _with_hints(page)

    return rows


@with_config(sections=("sources", SOURCE_NAME))
def configured_client(
    base_url: str = PRODUCTION_URL,
    access_token: Optional[TSecretStrValue] = None,  # noqa: UP045
    client_id: Optional[TSecretStrValue] = None,  # noqa: UP045
    client_secret: Optional[TSecretStrValue] = None,  # noqa: UP045
    request_timeout: float = 60,
) -> Client:
    """A client of the API as it is configured, for one request at a time."""
    credentials = configuration.check_credentials(access_token, client_id, client_secret)
    return Client(base_url, credentials, request_timeout=request_timeout, max_workers=1)


@with_config(sections=("sources", SOURCE_NAME))
def _configured_executions(executions: Optional[Any] = None) -> Any:  # noqa: UP045
    """What dlt finds configured under the key `executions`."""
    return () if executions is None else executions


def _resources(plan: Plan, *, row_tables: bool) -> list[DltResource]:
    @dlt.resource(name="polled", selected=False)
    def polled() -> Iterator["Page"]:
        yield from pages_of_load(plan)

    # Transformers only pass on: dlt may hand them a page before it has done with the one before.

    @dlt.transformer(data_from=polled, name="executions")
    def executions(page: "Page") -> Any:
        return page.executions or dlt.mark.materialize_table_schema()

    @dlt.transformer(data_from=polled, name="steps")
    def steps(page: "Page") -> Any:
        return page.steps or dlt.mark.materialize_table_schema()

    @dlt.transformer(data_from=polled, name="cells")
    def cells(page: "Page") -> Iterator[Any]:
        yield from page.cells  # a list of them dlt would join

    @dlt.transformer(data_from=polled, name="rows")
    def rows(page: "Page") -> Iterator[Any]:
        yield from map(_with_hints, page.rows)

    return [polled, executions, steps, cells, rows] if row_tables else [polled, executions, steps, cells]


def _with_hints(wide: "WideRecords") -> Any:
    hints = dlt.mark.make_hints(table_name=wide.table_name, **wide.hints)
    return dlt.mark.with_hints(wide.records, hints, create_table_variant=True)
