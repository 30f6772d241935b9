"""The examples for Dagster and Airflow, run by the real ones, each in an environment of its own."""

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

from further_source.lock import only_load
from further_source.sandbox import Sandbox
from tests.support.command import HANG, Command, serve
from tests.support.documents import PROJECT

pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not installed")]

SECONDS = 900  # to install them, and to start

RUN_JOB = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("further_assets", sys.argv[1])
example = importlib.util.module_from_spec(spec)
spec.loader.exec_module(example)
done = example.definitions.resolve_job_def("load_further").execute_in_process()
assert done.success
print("ASSETS", *sorted("/".join(event.asset_key.path) for event in done.get_asset_materialization_events()))
"""


def run(
    directory: Path, environment: dict[str, str], options: list[str], script: str, example: Path
) -> "subprocess.CompletedProcess[str]":
    """Runs a script on an example with packages that are installed for it alone."""
    file = directory / "script.py"
    file.write_text(script, encoding="utf-8")
    done = subprocess.run(
        ["uv", "run", "--isolated", "--quiet", *options, "python", str(file), str(example)],
        cwd=directory,
        env={**environment, **of_uv()},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done


def of_uv() -> dict[str, str]:
    """What uv needs to find and keep packages, whatever else is in the environment."""
    uv = {name: value for name, value in os.environ.items() if name.startswith(("UV_", "SSL_"))}
    uv["UV_CACHE_DIR"] = subprocess.run(["uv", "cache", "dir"], capture_output=True, text=True).stdout.strip()
    return uv


def submit(directory: Path, sandbox: Sandbox) -> None:
    for name in ("a", "b"):
        serve(sandbox, name, {"x": 1})
    (directory / "submitted.csv").write_text("workflow_id,execution_id\nwf,a\nwf,b\n", encoding="utf-8")


def test_dagster_runs_the_job_of_its_example(tmp_path: Path, sandbox: Sandbox, postgres_url: str) -> None:
    command = Command(tmp_path, sandbox)
    submit(command.directory, sandbox)
    command.environment = {"DESTINATION__POSTGRES__CREDENTIALS": postgres_url, "DAGSTER_DISABLE_TELEMETRY": "yes"}
    packages = ["--project", str(PROJECT), "--no-dev", "--extra", "postgres", "--with", "dagster-dlt"]

    done = run(
        command.directory, command.env(), packages, RUN_JOB, PROJECT / "examples" / "dagster" / "further_assets.py"
    )

    [line] = [line for line in done.stdout.splitlines() if line.startswith("ASSETS")]
    assert {"cells", "executions", "rows", "steps"} <= {name.rpartition("_")[2] for name in line.split()[1:]}
    with psycopg2.connect(postgres_url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT workflow_execution_id, poll_outcome FROM further_data.executions ORDER BY 1")
        assert cursor.fetchall() == [("a", "completed"), ("b", "completed")]
        cursor.execute("DROP SCHEMA further_data, further_data_staging CASCADE")


@pytest.fixture(scope="session")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, with the one provider that the example imports."""
    directory = tmp_path_factory.mktemp("airflow")
    python = directory / "bin" / "python"
    packages = ["apache-airflow-core>=3", "apache-airflow-providers-standard"]
    for arguments in (
        ["venv", "--python", sys.executable, str(directory)],
        ["pip", "install", "--python", str(python), *packages],
    ):
        done = subprocess.run(["uv", *arguments], capture_output=True, text=True, timeout=SECONDS)
        if done.returncode:
            pytest.skip(f"Airflow cannot be installed: {done.stderr.strip()[-300:]}")
    return directory / "bin" / "airflow"


@pytest.mark.skipif(os.name == "nt", reason="Airflow is for POSIX")
def test_airflow_runs_its_example_and_skips_it_while_another_load_runs(
    tmp_path: Path, sandbox: Sandbox, airflow: Path
) -> None:
    command = Command(tmp_path, sandbox)
    submit(command.directory, sandbox)
    (command.directory / ".venv").symlink_to(Path(sys.prefix))
    home = tmp_path / "airflow"
    example = (PROJECT / "examples" / "airflow" / "further_dag.py").read_text(encoding="utf-8")
    assert example.count("/opt/further_source") == 1
    (home / "dags").mkdir(parents=True)
    (home / "dags" / "further_dag.py").write_text(
        example.replace("/opt/further_source", str(command.directory)), encoding="utf-8"
    )
    command.environment = {"AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "false"}

    def run_airflow(*arguments: str) -> None:
        done = subprocess.run(
            [airflow, *arguments],
            cwd=home,
            env=command.env(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=HANG * 2,
        )
        assert done.returncode == 0, f"{done.stdout[-3_000:]}\n{done.stderr[-3_000:]}"

    def states() -> list[str]:
        with closing(sqlite3.connect(home / "airflow.db")) as database:
            return [state for (state,) in database.execute("SELECT state FROM task_instance ORDER BY start_date")]

    run_airflow("db", "migrate")
    with only_load("further", str(command.pipeline.parent)):
        run_airflow("dags", "test", "further")
    assert (states(), command.database.exists()) == (["skipped"], False)

    run_airflow("dags", "test", "further")
    assert states() == ["skipped", "success"]
    assert command.outcomes() == {"a": "completed", "b": "completed"}
