"""The examples for Dagster, Airflow and Dask, run by the real ones, each in an environment of its own."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
import yaml

from further_source.lock import only_load
from further_source.sandbox import Sandbox
from tests.support.command import HANG, Command, asked, finish, loaded, serve
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


class Airflow:
    """Airflow with one example, which runs the command in the command's directory; all it keeps is below its home."""

    def __init__(self, program: Path, command: Command, example: str) -> None:
        self._program = program
        self._command = command
        self._home = command.home / "airflow"
        (self._home / "dags").mkdir(parents=True)
        (self._home / "dags" / "dag.py").write_text(in_directory(example, command.directory), encoding="utf-8")
        command.environment |= {"AIRFLOW_HOME": str(self._home), "AIRFLOW__CORE__LOAD_EXAMPLES": "false"}
        self.run("db", "migrate")

    def run(self, *arguments: str) -> None:
        done = subprocess.run(
            [self._program, *arguments],
            cwd=self._home,
            env=self._command.env(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=HANG * 2,
        )
        assert done.returncode == 0, f"{done.stdout[-3_000:]}\n{done.stderr[-3_000:]}"

    def states(self) -> list[str]:
        with closing(sqlite3.connect(self._home / "airflow.db")) as database:
            return [state for (state,) in database.execute("SELECT state FROM task_instance ORDER BY start_date")]


@pytest.mark.skipif(os.name == "nt", reason="Airflow is for POSIX")
def test_airflow_runs_its_example_and_skips_it_while_another_load_runs(
    tmp_path: Path, sandbox: Sandbox, airflow: Path
) -> None:
    command = Command(tmp_path, sandbox)
    submit(command.directory, sandbox)
    (command.directory / ".venv").symlink_to(Path(sys.prefix))
    program = Airflow(airflow, command, "airflow/further_dag.py")

    with only_load("further", str(command.pipeline.parent)):
        program.run("dags", "test", "further")
    assert (program.states(), command.database.exists()) == (["skipped"], False)

    program.run("dags", "test", "further")
    assert program.states() == ["skipped", "success"]
    assert command.outcomes() == {"a": "completed", "b": "completed"}


# A list in parts


NAMES = [f"ex-{number}" for number in range(24)]


@pytest.fixture
def parts(tmp_path: Path, sandbox: Sandbox, postgres_url: str) -> Iterator[Command]:
    """A command for a list into PostgreSQL, with the environment that a worker has; drops the dataset at the end."""
    command = Command(tmp_path, sandbox)
    for name in NAMES:
        serve(sandbox, name, {"x": 1})
    lines = ["workflow_id,execution_id", *(f"wf,{name}" for name in NAMES)]
    (command.directory / "submitted.csv").write_text("\n".join(lines), encoding="utf-8")
    (command.directory / ".venv").symlink_to(Path(sys.prefix))
    command.environment["DESTINATION__POSTGRES__CREDENTIALS"] = postgres_url
    yield command
    connection = psycopg2.connect(postgres_url)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT nspname FROM pg_namespace WHERE starts_with(nspname, 'further_data')")
        cursor.execute(f"DROP SCHEMA {', '.join(name for (name,) in cursor.fetchall())} CASCADE")
    connection.close()


def assert_loaded_in_parts(command: Command, sandbox: Sandbox, url: str, count: int) -> None:
    connection = psycopg2.connect(url)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT workflow_execution_id, poll_outcome FROM further_data.executions")
        assert sorted(cursor.fetchall()) == sorted((name, "completed") for name in NAMES)
        cursor.execute("SELECT workflow_execution_id, field, value FROM further_data.cells")
        assert sorted(cursor.fetchall()) == sorted((name, "x", "1") for name in NAMES)
    connection.close()
    assert asked(sandbox) == dict.fromkeys(NAMES, 1)
    expected = {f"further_shard_{part}_of_{count}" for part in range(1, count + 1)}
    assert {path.name for path in command.data_dir.glob("**/pipelines/further*") if path.is_dir()} == expected


def in_directory(example: str, directory: Path) -> str:
    """The text of an example, for this directory in place of the one that it names."""
    text = (PROJECT / "examples" / example).read_text(encoding="utf-8")
    assert text.count("/opt/further_source") == 1
    return text.replace("/opt/further_source", str(directory))


def test_dask_loads_the_parts_of_its_example(parts: Command, sandbox: Sandbox, postgres_url: str) -> None:
    example = "dask/further_parts.py"
    packages = ["--no-project", "--with", "distributed>=2024.8"]

    done = run(
        parts.directory, parts.env(), packages, in_directory(example, parts.directory), PROJECT / "examples" / example
    )

    assert done.stdout.splitlines() == [f"part {part} of 4 is loaded" for part in (1, 2, 3, 4)]
    assert_loaded_in_parts(parts, sandbox, postgres_url, 4)


@pytest.mark.skipif(os.name == "nt", reason="Airflow is for POSIX")
def test_airflow_maps_a_task_to_each_part(parts: Command, sandbox: Sandbox, airflow: Path, postgres_url: str) -> None:
    program = Airflow(airflow, parts, "airflow/further_parts_dag.py")

    program.run("dags", "test", "further_parts")

    assert program.states() == ["success"] * 4
    assert_loaded_in_parts(parts, sandbox, postgres_url, 4)


@pytest.mark.skipif(os.name == "nt", reason="needs a shell")
def test_each_index_of_the_job_loads_its_part(parts: Command, sandbox: Sandbox, postgres_url: str) -> None:
    """As a container would, with a disk of its own."""
    job = yaml.safe_load((PROJECT / "examples" / "kubernetes" / "indexed-job.yaml").read_text(encoding="utf-8"))
    [container] = job["spec"]["template"]["spec"]["containers"]
    arguments = [text.replace("/lists/", f"{parts.directory}/") for text in container["args"]]
    variables = {variable["name"]: variable["value"] for variable in container["env"]}

    pods = []
    for index in range(job["spec"]["completions"]):
        pod = {**parts.env(), **variables, "JOB_COMPLETION_INDEX": str(index)}
        pod |= {"DLT_DATA_DIR": str(parts.data_dir / str(index)), "PATH": f"{sys.prefix}/bin:{pod['PATH']}"}
        pods.append(
            subprocess.Popen(
                [*container["command"], *arguments],
                env=pod,
                cwd=parts.home,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    for process in pods:
        assert loaded(finish(process)).stderr == ""

    assert_loaded_in_parts(parts, sandbox, postgres_url, len(pods))


@pytest.mark.parametrize("name", ["cronjob.yaml", "indexed-job.yaml"])
def test_kubernetes_knows_every_field_of_its_examples(name: str) -> None:
    manifest = PROJECT / "examples" / "kubernetes" / name
    options = ["--isolated", "--no-project", "--quiet", "--with", "kubernetes-validate>=1.33"]
    done = subprocess.run(
        ["uv", "run", *options, "kubernetes-validate", "--strict", str(manifest)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )

    assert (done.returncode, done.stderr) == (0, ""), f"{done.stdout}\n{done.stderr}"
