"""The tables as Dagster assets, by way of `dagster-dlt`.

A run is one load from beginning to end: what had arrived is lost if it is killed, and the next asks for it again. For
lists that take long, let Dagster run `further-source load` in a process of its own.
"""

from collections.abc import Iterator
from typing import Any

import dlt
from dagster import AssetExecutionContext, Definitions, ScheduleDefinition, define_asset_job
from dagster_dlt import DagsterDltResource, dlt_assets

from further_source import further_source

SUBMITTED = "submitted.csv"

pipeline = dlt.pipeline("further_dagster", destination="postgres", dataset_name="further_data")

# Only tells Dagster what resources there are: it asks nothing, and needs neither a list nor credentials.
outline = further_source(
    executions=[], executions_file="", executions_query="", access_token="none", client_id="", client_secret=""
)


@dlt_assets(dlt_source=outline, dlt_pipeline=pipeline, name="further", group_name="further")
def further_assets(context: AssetExecutionContext, dlt_resource: DagsterDltResource) -> Iterator[Any]:
    # Made anew for each run: the list is read here, not when Dagster loads its definitions.
    yield from dlt_resource.run(context=context, dlt_source=further_source(executions_file=SUBMITTED))


job = define_asset_job("load_further", selection=[further_assets])

definitions = Definitions(
    assets=[further_assets],
    jobs=[job],
    schedules=[ScheduleDefinition(job=job, cron_schedule="*/15 * * * *")],
    resources={"dlt_resource": DagsterDltResource()},
)
