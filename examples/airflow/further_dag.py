"""Loads what was submitted, every 15 minutes. For Airflow 3; in Airflow 2 `DAG` is imported from `airflow`.

The command and not dlt's `PipelineTasksGroup`: that makes one load of the whole polling, which a signal would lose.
Credentials come from the worker's environment. Where a task is killed it has `killed_task_cleanup_time` seconds for the
load of what has arrived (`[core]` in airflow.cfg, 60 unless configured): give it 600.
"""

from datetime import datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

with DAG(
    dag_id="further",
    schedule="*/15 * * * *",
    start_date=datetime(2025, 1, 1),
    catchup=False,  # a run loads all that is not loaded, not an interval
    max_active_runs=1,
):
    BashOperator(
        task_id="load",
        cwd="/opt/further_source",
        bash_command="exec .venv/bin/further-source load --executions submitted.csv --quiet",
        skip_on_exit_code=75,  # another load is running
        retries=2,
        retry_delay=timedelta(minutes=5),
    )
