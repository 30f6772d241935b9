"""The dlt source: the only module with dlt's decorators."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any, Optional

import dlt
from dlt.common.configuration import with_config
from dlt.common.typing import TSecretStrValue
from dlt.extract import DltResource, DltSource
from dlt.extract.pipe import Pipe

from further_source import configuration, manifest
from further_source.api.client import Client
from further_source.destination.lease import configured_seconds
from further_source.dlt_internals import keep_inner_hints
from further_source.exceptions import ConfigurationError
from further_source.executions import ExecutionId
from further_source.inbox.signed_urls import check_hosts
from further_source.inbox.store import Inbox
from further_source.run.arrivals import Push
from further_source.run.opening import Plan
from further_source.run.slices import pages_of_load
from further_source.settings import DELIVERY_HOSTS, MAX_ANSWER_BYTES, PRODUCTION_URL, SOURCE_NAME
from further_source.tables.columns import CELLS, EXECUTIONS, ROWS, STEPS
from further_source.telemetry import stop_telemetry_unless_configured
from further_source.unknown_keys import check_keys

if TYPE_CHECKING:
    from further_source.run.records import Page, WideRecords

__all__ = [
    "check_configured_keys",
    "configured_client",
    "further_executions",
    "further_source",
    "further_webhooks",
    "has_credentials",
    "rebuilding_source",
]

keep_inner_hints()  # now: dlt looks at hints before it calls anything here


@dlt.source(name=SOURCE_NAME, section=SOURCE_NAME)
def further_source(
    executions: object = None,  # of Any dlt would ask for its truth, and a series has none
    executions_file: Optional[str] = None,  # noqa: UP045  dlt reads these hints
    executions_query: Optional[str] = None,  # noqa: UP045
    executions_database: Optional[TSecretStrValue] = None,  # noqa: UP045
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
    commit_interval: Optional[float] = None,  # noqa: UP045
    terminal_statuses: Optional[Any] = ("completed", "failed"),  # noqa: UP045  plain Any would be a tuple to dlt
    row_tables: bool = True,
    reload: bool = False,
    compact_every: int = 0,
    inbox: Optional[str] = None,  # noqa: UP045
    inbox_loaded: str = "archive",
    push_grace: float = 900,
    verify_deliveries: bool = False,
    delivery_hosts: Optional[Any] = DELIVERY_HOSTS,  # noqa: UP045
) -> list[DltResource]:
    """Polls the listed executions to completion; yields `executions`, `steps`, `cells` and `rows` (`rows_…`).

    Every argument can be given, or configured in section `sources.further_source`.

    Args:
        executions: `"WORKFLOW_ID/EXECUTION_ID"` texts, pairs, or mappings with `workflow_id` and `execution_id` or
            `workflow_execution_id`; any iterable of them. A resource of dlt's is read when the run begins; what it
            yields may be tables of arrow or pandas, too.
        executions_file: Path or fsspec URL of a list of the same: `.csv`, `.jsonl`, `.json`, or lines. Adds to
            `executions`; what is listed twice is asked once.
        executions_query: SQL that gives the columns `workflow_id` and `execution_id` or `workflow_execution_id`. Adds
            to both.
        executions_database: The SQLAlchemy URL of the database that the query runs on, where only reading is allowed.
            Without it the query runs on the destination, when the run begins.
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
        commit_interval: Seconds after which `run_in_slices` loads what has arrived; None for 60, or 600 on BigQuery.
        terminal_statuses: Statuses that end polling, in any case; other ones than `completed` count as failed.
        row_tables: Whether to build the wide `rows_…` tables.
        reload: Ask again for what is loaded, and replace it.
        compact_every: How many loads `run_in_slices` makes into tables of Delta and Iceberg before it compacts them; 0
            for never.
        inbox: Directory or fsspec URL of stored webhook deliveries, which are loaded too. What is listed is asked only
            where none comes. Without credentials what no delivery settles is `unreachable` until a later run can ask.
        inbox_loaded: What `run_in_slices` does with files whose deliveries are loaded: `archive`, `delete` or `leave`.
        push_grace: Seconds that a listed execution may go without a delivery before it is asked, from when it was first
            listed.
        verify_deliveries: Ask for whatever was delivered, and load the API's answer.
        delivery_hosts: The hosts from which signed URLs are fetched; `*.NAME` stands for all below one.

    Raises:
        ConfigurationError: A value that cannot work, a configured key that is none, or a list that cannot be read.
            Nothing has been asked.
        CredentialsError: Out of `pipeline.run`, where the API refuses the credentials: nothing of that run is loaded.
            `run_in_slices` loads what had arrived before it raises.
    """
    stop_telemetry_unless_configured()
    check_configured_keys()
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
    if commit_interval is not None:
        configuration.check_number("commit_interval", commit_interval, least=0)
    configuration.check_number("compact_every", compact_every, least=0)
    configuration.check_number("push_grace", push_grace, least=0)
    push = None
    if inbox:
        push = Push(
            Inbox(inbox, inbox_loaded, workers=max_workers),
            check_hosts(configuration.parse_list("delivery_hosts", delivery_hosts)),
            grace=push_grace,
            verify=verify_deliveries,
            request_timeout=request_timeout,
            max_bytes=max_answer_bytes,
        )
    make_client = None
    if push is None or verify_deliveries or access_token or client_id or client_secret:
        make_client = partial(
            Client,
            base_url,
            configuration.check_credentials(access_token, client_id, client_secret),
            request_timeout=request_timeout,
            max_workers=max_workers,
            max_answer_bytes=max_answer_bytes,
        )
        make_client().close()  # finds what cannot work before anything is asked
    eager, later, query = _lists(
        _configured_executions() if executions is None else executions,
        executions_file,
        executions_query,
        executions_database,
    )
    plan = Plan(
        manifest.merge_executions(*eager),
        make_client,
        settings,
        reload=reload,
        commit_interval=commit_interval,
        compact_every=compact_every,
        push=push,
        listed_later=later,
        query=query,
    )
    return _resources(plan, row_tables=row_tables)


def _lists(
    executions: object, file: str | None, query: str | None, database: str | None
) -> tuple[list[Iterable[ExecutionId]], list[Callable[[], Iterable[ExecutionId]]], str | None]:
    """Lists that are read now, those that are read once a run extracts, and a query on the destination."""
    eager: list[Iterable[ExecutionId]] = []
    later: list[Callable[[], Iterable[ExecutionId]]] = []
    if isinstance(executions, DltResource):
        later.append(partial(manifest.read_executions, manifest.items_of(executions)))
    else:
        eager.append(manifest.read_executions(configuration.parse_list("executions", executions)))
    if file:
        eager.append(manifest.read_executions_file(file))
    if query and database:
        eager.append(manifest.read_executions_query(query, database))
        query = None
    return eager, later, query or None


class _Piped(DltResource):
    """`further_source` on the right side of dlt's `|`.

    A transformer of dlt's is called for each item by itself, and cannot know of the next; but one schedule and one rate
    budget need the whole list. So `|` makes a source that lists all items of the resource, and then polls.
    """

    def __init__(self, arguments: dict[str, Any]) -> None:
        super().__init__(Pipe("further_executions"), {}, selected=True)
        self._arguments = arguments

    def __ror__(self, listed: Any) -> DltSource:  # type: ignore[override]
        source: DltSource = further_source(
            **{"executions_file": "", "executions_query": "", **self._arguments, "executions": listed}
        )
        return source


def further_executions(**arguments: Any) -> Any:
    """`submitted | further_executions()` is the source that polls what the resource `submitted` yields.

    It has the same resources as `further_source(executions=submitted)`; no other list that is configured is read. The
    resource is read when the run begins, and is not loaded itself. Its state is not kept: it has to yield whatever is
    not known to have ended.

    Args:
        arguments: As of `further_source`.

    Raises:
        ConfigurationError: As of `further_source`.
    """
    return _Piped(arguments)


def further_webhooks(inbox: str | None = None, **arguments: Any) -> DltSource:
    """Yields the same tables from stored webhook deliveries alone: `further_source` without a list.

    Args:
        inbox: Directory or fsspec URL; as configured unless given.
        arguments: As of `further_source`.

    Raises:
        ConfigurationError: As of `further_source`, or no inbox is given and none configured.
    """
    inbox = inbox or _configured_inbox()
    if not inbox:
        raise ConfigurationError("no inbox: give one, or configure inbox in [sources.further_source]")
    source: DltSource = further_source(
        **{"executions": (), "executions_file": "", "executions_query": "", **arguments, "inbox": inbox}
    )
    return source


@dlt.source(name=SOURCE_NAME, section=SOURCE_NAME)
def rebuilding_source(pages: Callable[[], Iterator["WideRecords"]]) -> DltResource:
    """The resource `rows` alone, of records that are made from what is loaded."""
    stop_telemetry_unless_configured()

    @dlt.resource(name="rows")
    def rows() -> Iterator[Any]:
        for page in pages():
            yield _with_hints(page)

    return rows


def check_configured_keys() -> None:
    """Looks for keys that are configured for the source, or nearly so, and that nobody reads.

    Raises:
        ConfigurationError: There are some.
    """
    keys = [*signature(further_source).parameters, *signature(configured_seconds).parameters]
    check_keys(keys, ["polled", *(table.name for table in (EXECUTIONS, STEPS, CELLS, ROWS))])


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
def has_credentials(
    access_token: Optional[TSecretStrValue] = None,  # noqa: UP045
    client_id: Optional[TSecretStrValue] = None,  # noqa: UP045
    client_secret: Optional[TSecretStrValue] = None,  # noqa: UP045
) -> bool:
    """Whether any are configured."""
    return bool(access_token or client_id or client_secret)


@with_config(sections=("sources", SOURCE_NAME))
def _configured_executions(executions: Optional[Any] = None) -> Any:  # noqa: UP045
    """What dlt finds configured under the key `executions`."""
    return configuration.configured_list("executions", executions)


@with_config(sections=("sources", SOURCE_NAME))
def _configured_inbox(inbox: Optional[str] = None) -> Optional[str]:  # noqa: UP045
    """What dlt finds configured under the key `inbox`."""
    return inbox


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
