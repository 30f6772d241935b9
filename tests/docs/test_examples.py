"""The examples for schedulers say what the command does, and name what exists."""

import ast
import configparser
import importlib
import importlib.util
import inspect
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import further_source
from further_source.command.arguments.parser import command_parser, parse
from further_source.settings import DATASET_NAME, LEASE_SECONDS, PollingSettings
from tests.support.documents import PROJECT, Document

EXAMPLES = PROJECT / "examples"
PYTHON = sorted(EXAMPLES.rglob("*.py"))
FILES = sorted(
    path for path in EXAMPLES.rglob("*") if path.is_file() and not {"__pycache__", "__marimo__"} & {*path.parts}
)


# All of them


def test_every_example_is_named_in_the_documentation() -> None:
    pages = [Document(PROJECT / "docs" / name) for name in ("scheduling.md", "report.md")]
    linked = {(page.path.parent / link).resolve() for page in pages for link in page.links() if "examples" in link}

    assert linked == {path.resolve() for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_command_takes_the_arguments_it_is_given(path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace(" \\\n", " ")
    if path.name == "cronjob.yaml":
        [container] = pod(yaml.safe_load(text))["containers"]
        assert "command" not in container  # that is the image's entry point
        assert container["args"][0] == "load"
        commands = [container["args"][1:]]
    elif path.name == "indexed-job.yaml":
        [container] = yaml.safe_load(text)["spec"]["template"]["spec"]["containers"]
        found = shlex.split(container["args"][0])
        assert found[:3] == ["exec", "further-source", "load"]
        assert found[-2:] == ["--shard", "$((JOB_COMPLETION_INDEX + 1))/4"]
        commands = [[*found[3:-1], "1/4"]]
    else:
        found = re.findall(r"\.venv/bin/further-source load((?: [-\w.]+)+)", text)
        commands = [arguments.split() for arguments in found]
        assert commands or path.suffix == ".timer" or path.parent.name in ("dagster", "marimo")

    for arguments in commands:
        assert parse(command_parser(), ["load", *arguments]).executions.endswith("submitted.csv")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_variables_are_keys_that_exist(path: Path) -> None:
    named = set(re.findall(r"SOURCES__FURTHER_SOURCE__(\w+)", path.read_text(encoding="utf-8")))

    assert named <= {"CLIENT_ID", "CLIENT_SECRET", "MAX_REQUESTS_PER_SECOND"}


# systemd


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), comment_prefixes=("#",), strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(EXAMPLES / "systemd" / name, encoding="utf-8")
    return parser


def test_the_service_takes_another_load_for_no_failure_and_lets_a_load_end() -> None:
    service = unit("further.service")["Service"]

    assert service["Type"] == "oneshot"
    assert service["SuccessExitStatus"] == "75"
    assert service["KillSignal"] == "SIGTERM"
    assert service["TimeoutStopSec"] == "10min"
    assert service["TimeoutStartSec"] == "infinity"  # a oneshot's whole run is its start
    assert (service["ProtectSystem"], service["NoNewPrivileges"], service["CapabilityBoundingSet"]) == (
        "strict",
        "yes",
        "",
    )
    state = f"/var/lib/{service['StateDirectory']}"
    assert service["Environment"] == f"DLT_DATA_DIR={state} DESTINATION__DUCKDB__CREDENTIALS={state}/further.duckdb"
    assert "Restart" not in service


def test_the_timer_starts_the_service() -> None:
    timer = unit("further.timer")

    assert "Unit" not in timer["Timer"]  # so it is the service of the same name
    assert timer["Timer"]["OnCalendar"] == "*:0/15"
    assert timer["Install"]["WantedBy"] == "timers.target"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_understands_the_units() -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", *map(str, sorted((EXAMPLES / "systemd").iterdir()))],
        capture_output=True,
        text=True,
        timeout=60,
    )

    complaints = [line for line in done.stderr.splitlines() if "further." in line and "is not executable" not in line]
    assert not complaints


# Kubernetes


def pod(cron_job: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return found


def test_the_cron_job_runs_one_load_at_a_time_and_lets_it_end() -> None:
    cron_job = yaml.safe_load((EXAMPLES / "kubernetes" / "cronjob.yaml").read_text(encoding="utf-8"))
    spec = cron_job["spec"]

    assert (cron_job["apiVersion"], cron_job["kind"]) == ("batch/v1", "CronJob")
    assert spec["concurrencyPolicy"] == "Forbid"
    assert pod(cron_job)["terminationGracePeriodSeconds"] == 600
    assert pod(cron_job)["restartPolicy"] == "Never"
    [container] = pod(cron_job)["containers"]
    assert container["envFrom"] == [{"secretRef": {"name": "further"}}]
    codes, disruption = spec["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    assert codes["action"] == "FailJob"
    assert codes["onExitCodes"] == {"containerName": container["name"], "operator": "In", "values": [2, 75]}
    assert disruption == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts.keys() == {volume["name"] for volume in pod(cron_job)["volumes"]}
    assert f"DLT_DATA_DIR={mounts['data']}/" in (PROJECT / "Dockerfile").read_text(encoding="utf-8")


def test_the_indexed_job_is_secured_as_the_cron_job_and_waits_for_the_lease_of_a_pod_that_died() -> None:
    cron_job, job = (
        yaml.safe_load((EXAMPLES / "kubernetes" / name).read_text(encoding="utf-8"))
        for name in ("cronjob.yaml", "indexed-job.yaml")
    )
    spec = job["spec"]
    found = spec["template"]["spec"]
    usual = pod(cron_job)

    assert (job["apiVersion"], job["kind"], spec["completionMode"]) == ("batch/v1", "Job", "Indexed")
    assert found.keys() == usual.keys()
    assert all(found[key] == usual[key] for key in found.keys() - {"containers"})
    [container], [one] = found["containers"], usual["containers"]
    assert container.keys() - one.keys() == {"command", "env"}
    assert all(container[key] == one[key] for key in one.keys() - {"args"})
    assert f'/{spec["completions"]}"' in container["args"][0]
    [rate] = container["env"]
    assert float(rate["value"]) * spec["parallelism"] == PollingSettings().max_requests_per_second
    codes, disruption = spec["podFailurePolicy"]["rules"]
    assert (codes["action"], codes["onExitCodes"]["values"]) == ("FailIndex", [2])
    assert disruption == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}
    # Kubernetes waits 10 s before the second pod of an index, and twice as long before each further one.
    assert sum(10 * 2**number for number in range(spec["backoffLimitPerIndex"] - 1)) > LEASE_SECONDS


# GitHub Actions


def workflow() -> dict[str, Any]:
    text = (EXAMPLES / "github" / "further.yml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506  else `on` would be True
    return found


def test_the_workflow_runs_one_load_at_a_time_within_its_limit() -> None:
    found = workflow()
    job = found["jobs"]["load"]

    assert found["on"]["schedule"] == [{"cron": "17 * * * *"}]
    assert found["concurrency"] == {"group": "further", "cancel-in-progress": "false"}
    assert found["permissions"] == {"contents": "read"}
    [minutes] = re.findall(r" (\d+)m ", job["steps"][-1]["run"])
    assert int(minutes) + 10 <= int(job["timeout-minutes"])
    assert all(value.startswith("${{ secrets.") for value in job["steps"][-1]["env"].values())


@pytest.mark.skipif(shutil.which("timeout") is None, reason="needs coreutils")
@pytest.mark.parametrize(("code", "ends_with"), [(0, 0), (1, 1), (2, 2), (75, 0), (143, 0)])
def test_the_workflow_maps_exit_codes(tmp_path: Path, code: int, ends_with: int) -> None:
    command = tmp_path / ".venv" / "bin" / "further-source"
    command.parent.mkdir(parents=True)
    command.write_text(f"#!/bin/sh\nexit {code}\n")
    command.chmod(0o755)

    # As GitHub runs it.
    done = subprocess.run(
        ["bash", "-e", "-c", workflow()["jobs"]["load"]["steps"][-1]["run"]], cwd=tmp_path, timeout=60
    )

    assert done.returncode == ends_with


# Airflow and Dagster


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: path.name)
def test_an_example_in_python_uses_names_of_ours_that_exist(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))

    imported = [
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("further_source")
        for alias in node.names
    ]
    assert set(imported) <= set(further_source.__all__)
    arguments = set(inspect.signature(further_source.further_source).parameters)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "further_source":
            assert {keyword.arg for keyword in node.keywords} <= arguments


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: path.name)
def test_an_example_in_python_can_be_imported(path: Path) -> None:
    needed = {
        "further_dag.py": "airflow.providers.standard",
        "further_parts_dag.py": "airflow.providers.standard",
        "further_assets.py": "dagster_dlt",
        "further_parts.py": "dask.distributed",
        "further.py": "marimo",
    }[path.name]
    pytest.importorskip(needed.partition(".")[0])
    pytest.importorskip(needed)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None

    spec.loader.exec_module(importlib.util.module_from_spec(spec))


def keywords_of(path: Path, function: str) -> dict[str, Any]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function:
            values = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
            return {name: value.value for name, value in values.items() if isinstance(value, ast.Constant)}
    raise LookupError(function)


def test_the_dag_skips_where_another_load_is_running() -> None:
    path = EXAMPLES / "airflow" / "further_dag.py"

    assert keywords_of(path, "BashOperator")["skip_on_exit_code"] == 75
    assert keywords_of(path, "BashOperator")["bash_command"].startswith("exec ")  # or bash would get the signal
    assert keywords_of(path, "DAG") == {
        "dag_id": "further", "schedule": "*/15 * * * *", "catchup": False, "max_active_runs": 1
    }  # fmt: skip


def test_the_assets_are_told_from_an_outline_that_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a list nor credentials, nor does it mind those that are configured."""
    path = EXAMPLES / "dagster" / "further_assets.py"
    [outline] = [
        node.value
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "outline"
    ]
    monkeypatch.setenv("SOURCES__FURTHER_SOURCE__CLIENT_ID", "configured")
    monkeypatch.setenv("SOURCES__FURTHER_SOURCE__CLIENT_SECRET", "configured")
    monkeypatch.setenv("SOURCES__FURTHER_SOURCE__EXECUTIONS_FILE", "nowhere.csv")

    source = eval(ast.unparse(outline), {"further_source": further_source.further_source})  # noqa: S307

    assert set(source.selected_resources) == {"executions", "steps", "cells", "rows"}
    assert keywords_of(path, "dlt_assets")["name"] == "further"
    assert DATASET_NAME in path.read_text(encoding="utf-8")
