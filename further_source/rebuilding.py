"""Wide tables made anew from `cells` and `steps`, asking the API nothing."""

from collections import Counter
from collections.abc import Iterator

import dlt
from dlt.common.schema.utils import new_table
from dlt.common.storages.load_package import commit_load_package_state

from further_source.destination.adapted import adapt
from further_source.destination.catalog import knows_sql, stored_types
from further_source.destination.dataset import Dataset
from further_source.destination.lease import leased
from further_source.destination.package_manifest import keep_manifest
from further_source.destination.pending import load_pending
from further_source.destination.stored import stored_answers
from further_source.destination.strategy import loading_of
from further_source.exceptions import ConfigurationError, FurtherError
from further_source.garbage import rarely_collected
from further_source.run.records import WideRecords
from further_source.source import rebuilding_source
from further_source.tables.columns import CELLS, FIELDS, ROWS
from further_source.tables.rows import fields_table, wide_tables

__all__ = ["rebuild"]


def rebuild(pipeline: dlt.Pipeline, step_name: str | None = None) -> Counter[str]:
    """Drops the wide tables and `fields`, and makes them anew from what is loaded.

    For tables or columns that somebody dropped, for loads that ran with `row_tables` off, and for columns that were
    given names or types by other rules. Columns are decided in the order in which the cells were loaded. The tables are
    dropped right before the new ones are loaded; a rebuild that is killed is ended by the next run of the pipeline.

    Args:
        pipeline: Its destination knows SQL.
        step_name: Only the tables of the steps of this name.

    Returns:
        How many rows each wide table has now.

    Raises:
        AlreadyRunningError: A load into the dataset is running.
        ConfigurationError: The destination knows no SQL, or nothing of that step is loaded.
        FurtherError: Nothing is loaded.
        dlt.pipeline.exceptions.PipelineStepFailed: As of `pipeline.run`.
    """
    if not knows_sql(pipeline):
        raise ConfigurationError("rebuild: the destination knows no SQL: load into a new dataset")
    counts: Counter[str] = Counter()
    with leased(pipeline), rarely_collected():
        load_pending(pipeline)
        if not _has_cells(pipeline):
            raise FurtherError("nothing is loaded into this dataset yet")
        pipeline.run(rebuilding_source(lambda: _pages(step_name, counts)))
    return counts


def _has_cells(pipeline: dlt.Pipeline) -> bool:
    with pipeline.destination_client() as client:
        return CELLS.name in stored_types(client)


def _pages(step_name: str | None, counts: Counter[str]) -> Iterator[WideRecords]:
    pipeline, schema = dlt.current.pipeline(), dlt.current.source_schema()
    keep_manifest()
    package = dlt.current.load_package_state()
    load_id = package["load_id"]
    loading = loading_of(pipeline, None)
    adapt(pipeline.destination)
    dataset = Dataset(pipeline, loading, schema)
    fields, dropped = dataset.begin_anew(step_name)
    if step_name is not None and not dropped:
        with pipeline.sql_client() as client:
            if not any(stored_answers(client, step_name)):
                raise ConfigurationError(f"rebuild: no step {step_name!r} is loaded")
    # dlt drops these before it loads the package, in the staging dataset too.
    package["state"]["dropped_tables"] = [
        new_table(name, write_disposition="append") for name in (*dropped, FIELDS.name)
    ]
    commit_load_package_state()
    for name in (*dropped, FIELDS.name):
        schema.tables.pop(name, None)
    rows, of_fields = loading.hints(ROWS), loading.hints(FIELDS)
    with pipeline.sql_client() as client:
        for answers in stored_answers(client, step_name):
            for name, table in wide_tables(answers, fields, load_id):
                counts[name] += table.num_rows
                yield WideRecords(name, loading.keyed(ROWS, table), rows)
    recorded = [*fields.recorded, *dataset.recorded_of_answers()]
    yield WideRecords(FIELDS.name, fields_table(recorded, load_id), of_fields)
