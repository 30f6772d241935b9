"""Loads what was submitted in parts, side by side: dynamic task mapping makes a task of each. For Airflow 3.

What further_dag.py says of credentials and killed tasks holds here, too. The workers may be on several machines; the
destination must be a server, such as PostgreSQL.
"""

from datetime import datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

PARTS = 4  # max_requests_per_second is for each of them

with DAG(
    dag_id="further_parts",
    schedule="*/15 * * * *",
    start_date=datetime(2025, 1, 1),
    catchup=False,  # a run loads all that is not loaded, not an interval
    max_active_runs=1,
):
    BashOperator.partial(
        task_id="load",
        cwd="/opt/further_source",
        bash_command="exec .venv/bin/further-source load --executions submitted.csv --destination postgres --quiet"
        ' "--shard=$PART"',
        append_env=True,
        skip_on_exit_code=75,  # the part is being loaded, or was by a worker that died less than 180 s ago
        retries=2,
        retry_delay=timedelta(minutes=5),
    ).expand(env=[{"PART": f"{part}/{PARTS}"} for part in range(1, PARTS + 1)])
