"""The example for Dagster, run by the real one in an environment of its own."""

import os
import shutil
import subprocess
from pathlib import Path

import psycopg2
import pytest

from further_source.sandbox import Sandbox
from tests.support.command import Command, serve
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
    uv = {name: value for name, value in os.environ.items() if name.startswith(("UV_", "SSL_"))}
    uv["UV_CACHE_DIR"] = subprocess.run(["uv", "cache", "dir"], capture_output=True, text=True).stdout.strip()
    done = subprocess.run(
        ["uv", "run", "--isolated", "--quiet", *options, "python", str(file), str(example)],
        cwd=directory,
        env={**environment, **uv},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done


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
