"""The command as users run it: its exit codes, what it says and where, what it loads and what it asks.

In a process of its own where that can make a difference (`run`), else in this one (`run_here`), which is much faster.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from further_source.sandbox import Reply, Sandbox, completed, demo_executions, error, failed, running
from further_source.sandbox.data import SUBMISSION_WORKFLOW
from tests.support.command import (
    HANG,
    Command,
    asked,
    cells_of,
    finish,
    ids,
    loaded,
    serve,
    stored_cells,
    told,
)
from tests.support.slow import few_of

A = "wf/a"
NO_CREDENTIALS: dict[str, Any] = {"client_id": None, "client_secret": None}


@pytest.fixture
def command(tmp_path: Path, sandbox: Sandbox) -> Command:
    return Command(tmp_path, sandbox)


# Wrong usage and configuration: exit 2, one line, nothing asked, nothing made

WRONG: list[tuple[str, list[str], dict[str, Any], list[str]]] = [
    ("unknown option", [A, "--frobnicate"], {}, ["--frobnicate"]),
    ("abbreviated option", [A, "--strin"], {}, ["--strin"]),
    ("option without its value", [A, "--polling"], {}, ["--polling"]),
    ("no list", [], {}, ["no list of executions", "--executions", "executions_file"]),
    ("empty list in the environment", [], {"executions": "[]"}, ["no list of executions"]),
    ("id without a slash", ["wf-a"], {}, ["arguments[0]", "'wf-a'"]),
    ("second id with a space", [A, "wf/b c"], {}, ["arguments[1]", "b c"]),
    ("id too long", ["wf/" + "x" * 129], {}, ["arguments[0]", "128"]),
    ("id that leaves its path", ["wf/.."], {}, ["arguments[0]", "'..'"]),
    ("configured id", [], {"executions": '["wf/a", "wf"]'}, ["executions[1]", "'wf'"]),
    ("configured list that is no JSON", [], {"executions": '["wf/a"'}, ["executions"]),
    ("missing list file", ["--executions", "nowhere.csv"], {}, ["nowhere.csv", "no such file"]),
    ("missing configured file", [], {"executions_file": "nowhere.csv"}, ["nowhere.csv", "no such file"]),
    ("empty file name", ["--executions", ""], {}, ["--executions"]),
    ("bad line", ["--executions", "bad.txt"], {}, ["bad.txt, line 3", "oops"]),
    ("bad record", ["--executions", "bad.csv"], {}, ["bad.csv, line 2", "execution_id"]),
    ("bad header", ["--executions", "header.csv"], {}, ["header.csv, line 1", "workflow_id"]),
    ("bad object", ["--executions", "bad.jsonl"], {}, ["bad.jsonl, line 2", "workflow_id"]),
    ("no UTF-8", ["--executions", "latin.txt"], {}, ["latin.txt, line 1", "UTF-8"]),
    ("no credentials", [A], NO_CREDENTIALS, ["client_id", "client_secret", "access_token"]),
    ("id without secret", [A], {"client_secret": None}, ["client_secret"]),
    ("secret without id", [A], {"client_id": None}, ["client_id"]),
    ("pair and token", [A], {"access_token": "t"}, ["access_token", "client_id"]),
    ("token with a line break", [A], {**NO_CREDENTIALS, "access_token": "a\nb"}, ["access_token"]),
    ("unknown preset", [A, "--polling", "fast"], {}, ["polling", "'fast'", "steady"]),
    ("max-wait that is no number", [A, "--max-wait", "long"], {}, ["--max-wait", "'long'"]),
    ("negative max-wait", [A, "--max-wait=-1"], {}, ["max_wait", "-1"]),
    ("endless max-wait", [A, "--max-wait", "inf"], {}, ["max_wait", "inf"]),
    ("workers that are no number", [A], {"max_workers": "many"}, ["max_workers"]),
    ("zero workers", [A], {"max_workers": 0}, ["max_workers", "0"]),
    ("rate of zero", [A], {"max_requests_per_second": 0}, ["max_requests_per_second", "0"]),
    ("shrinking interval", [A], {"backoff_factor": 0.5}, ["backoff_factor", "0.5"]),
    ("initial above max", [A], {"initial_interval": 9, "max_interval": 3}, ["initial_interval", "max_interval"]),
    ("zero interval", [A], {"initial_interval": 0}, ["initial_interval", "0"]),
    ("timeout of zero", [A], {"request_timeout": 0}, ["request_timeout", "0"]),
    ("negative commit interval", [A], {"commit_interval": -1}, ["commit_interval", "-1"]),
    ("no statuses", [A], {"terminal_statuses": "[]"}, ["terminal_statuses"]),
    ("reload that is no truth value", [A], {"reload": "perhaps"}, ["reload"]),
    ("base_url of another scheme", [A], {"base_url": "ftp://api.further.ai"}, ["base_url"]),
    ("base_url without scheme", [A], {"base_url": "api.further.ai"}, ["base_url"]),
    ("base_url in clear", [A], {"base_url": "http://api.further.ai"}, ["base_url", "https"]),
    ("unknown destination", [A, "--destination", "oracel"], {}, ["oracel"]),
    (
        "destination without credentials",
        [A, "--destination", "postgres"],
        {},
        ["destination.postgres.credentials.password", "DESTINATION__POSTGRES__CREDENTIALS__"],
    ),
    ("destination without a place", [A, "--destination", "filesystem"], {}, ["destination.filesystem.bucket_url"]),
    ("dataset like the file", [A, "--dataset", "further"], {}, ["dataset further", "further.duckdb"]),
    ("dataset like the file but for case", [A, "--dataset", "Further"], {}, ["dataset Further", "further.duckdb"]),
    ("demo with ids", [A, "--demo"], {}, ["--demo"]),
    ("demo with a list", ["--demo", "--executions", "-"], {}, ["--demo", "--executions"]),
    ("control characters in an id", ["wf/\x1b[31mred\x07"], {}, ["\\x1b[31mred\\x07"]),
    ("control characters in an option", [A, "--\x1b]0;title\x07"], {}, ["\\x1b]0;title\\x07"]),
    ("control characters in a preset", [A, "--polling", "\x1b[2J"], {}, ["\\x1b[2J"]),
    ("control characters in a number", [A, "--max-wait", "\x1b[2J"], {}, ["\\x1b[2J"]),
    ("control characters in a destination", [A, "--destination", "\x1b[2J"], {}, ["\\x1b[2J"]),
    ("control characters in a dataset", [A, "--dataset", "\x1b[2J"], {}, ["\\x1b[2J"]),
    ("control characters in a file name", ["--executions", "\x1b[2J\n"], {}, ["\\x1b[2J\\n"]),
]


@pytest.mark.parametrize(("arguments", "settings", "named"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_wrong_usage_is_told_in_one_line(
    command: Command, sandbox: Sandbox, arguments: list[str], settings: dict[str, Any], named: list[str]
) -> None:
    files = {
        "bad.txt": b"wf/a\n# a remark\noops\n",
        "bad.csv": b"workflow_id,execution_id\nwf,a b\n",
        "header.csv": b"workflow,execution_id\nwf,a\n",
        "bad.jsonl": b'{"workflow_id": "wf", "execution_id": "a"}\n{"execution_id": "a"}\n',
        "latin.txt": b"wf/\xe9\n",
    }
    for name, content in files.items():
        (command.directory / name).write_bytes(content)

    done = command.run_here(*arguments, **settings)

    line = told(done, 2)
    assert all(text in line for text in named), line
    assert line.isprintable()
    assert done.stdout == ""
    assert sandbox.requests == []
    assert {path.name for path in command.directory.iterdir()} == set(files)
    assert not command.pipeline.exists()


@pytest.mark.parametrize(("file", "key"), [("config.toml", "config.toml"), ("secrets.toml", "secrets.toml")])
def test_broken_configuration_files_are_named(command: Command, file: str, key: str) -> None:
    (command.directory / ".dlt").mkdir()
    (command.directory / ".dlt" / file).write_text('[sources.further_source]\nclient_secret = "hunter2\n')
    line = told(command.run(A), 2)
    assert key in line
    assert "hunter2" not in line


def test_an_unknown_log_level_is_named(command: Command) -> None:
    command.environment["RUNTIME__LOG_LEVEL"] = "LOUD"
    line = told(command.run(A), 2)
    assert "log_level" in line
    assert "LOUD" in line


def test_help_shows_the_options_and_exits_0(command: Command) -> None:
    done = loaded(command.run("--help"))
    options = ("--executions", "--demo", "--destination", "--dataset", "--polling", "--max-wait", "--reload")
    assert all(option in done.stdout for option in (*options, "--strict", "--quiet"))
    assert done.stderr == ""


# Lists


def test_an_empty_list_file_makes_the_tables_and_asks_nothing(command: Command, sandbox: Sandbox) -> None:
    (command.directory / "list.txt").write_text("\n# nothing yet\n")
    done = loaded(command.run_here("--executions", "list.txt"))
    assert "0 executions listed" in done.stdout
    assert sandbox.requests == []
    for table in ("executions", "steps", "cells"):
        assert command.query(f"SELECT count(*) FROM {table}") == [(0,)]
    loaded(command.run_here("--executions", "list.txt", "--strict"))


@pytest.mark.parametrize("there", few_of(["lost working directory", "another file", "another dataset"]))
def test_an_empty_list_makes_the_tables_wherever_they_are_not(
    command: Command, sandbox: Sandbox, tmp_path: Path, there: str
) -> None:
    serve(sandbox, "a")
    loaded(command.run_here(A))
    arguments = ["--executions", "-"]
    database, schema = command.database, "further_data"
    if there == "another file":  # it exists, and has nothing of ours
        database = tmp_path / "other.duckdb"
        duckdb.connect(str(database)).close()
        command.environment["DESTINATION__DUCKDB__CREDENTIALS"] = str(database)
    elif there == "another dataset":
        schema = "empty_data"
        arguments += ["--dataset", schema]
    else:
        shutil.rmtree(command.data_dir)
    done = loaded(command.run_here(*arguments, stdin=""))

    assert "try:" not in done.stdout
    assert command.query("SELECT * FROM cells WHERE confidence < 0", database, schema=schema) == []
    assert command.query("SELECT count(*) FROM _dlt_loads", database, schema=schema) == [(1,)]


def test_lists_add_up_and_duplicates_count_once(command: Command, sandbox: Sandbox) -> None:
    for name in "abcde":
        serve(sandbox, name)
    (command.directory / "configured.csv").write_text("x,workflow_id,execution_id\n1,wf,d\n2,wf,a\n")
    stdin = "\n".join(json.dumps({"workflow_id": "wf", "workflow_execution_id": name}) for name in "bca")
    done = loaded(
        command.run_here(
            *ids("ab"),
            *("--executions", "-"),
            stdin=stdin,
            executions=json.dumps(["wf/e", "wf/a"]),
            executions_file="configured.csv",
        )
    )
    assert "5 executions listed" in done.stdout
    assert asked(sandbox) == dict.fromkeys("abcde", 1)
    assert command.outcomes() == dict.fromkeys("abcde", "completed")


def test_configuration_files_are_enough(command: Command, sandbox: Sandbox) -> None:
    serve(sandbox, "a")
    (command.directory / ".dlt").mkdir()
    (command.directory / ".dlt" / "config.toml").write_text(
        f'[sources.further_source]\nbase_url = "{sandbox.base_url}"\nexecutions = ["wf/a"]\n'
        'terminal_statuses = ["completed", "cancelled"]\n'
    )
    (command.directory / ".dlt" / "secrets.toml").write_text(
        f'[sources.further_source]\nclient_id = "{sandbox.client_id}"\nclient_secret = "{sandbox.client_secret}"\n'
    )
    command.settings = {}
    loaded(command.run_here())
    assert command.outcomes() == {"a": "completed"}


def test_statuses_can_be_configured_in_the_environment(command: Command, sandbox: Sandbox) -> None:
    sandbox.add("wf", "a", {**running("wf", "a"), "status": "Cancelled"})
    loaded(command.run_here(A, terminal_statuses='["completed", "cancelled"]'))
    assert command.outcomes() == {"a": "failed"}


# What is shown, and where


def test_the_summary_goes_to_standard_output_and_progress_to_standard_error(command: Command, sandbox: Sandbox) -> None:
    serve(sandbox, "a", {"x": 1, "y": "z"}, {"x": 2})
    serve(sandbox, "b")
    sandbox.add("wf", "c", failed("wf", "c"))
    sandbox.add("wf", "d", running("wf", "d"))
    sandbox.add("wf", "e", error(404))
    done = loaded(command.run(*ids("abcde"), max_wait=0))
    lines = [line.split() for line in done.stdout.splitlines()]
    assert done.stdout.startswith("5 executions listed\n")
    for counted in (["2", "completed"], ["1", "failed"], ["5", "executions"], ["2", "steps"], ["4", "cells"]):
        assert counted in lines
    assert any(line[:2] == ["1", "still"] for line in lines)
    assert ["1", "not", "found", "(404)"] in lines
    assert ["3", "rows_extract"] in lines
    assert f"data: duckdb, dataset further_data, duckdb:///{command.database}" in done.stdout
    assert "5 of 5 ended: 2 completed, 1 failed, 1 running, 1 not_found" in done.stderr
    assert all(line[2] == line[5] == ":" for line in done.stderr.splitlines()), done.stderr

    query = done.stdout.partition("try:\n")[2]
    assert command.query(query) == []


def test_json_is_the_summary_as_one_document(command: Command, sandbox: Sandbox) -> None:
    serve(sandbox, "a", {"x": 1})
    sandbox.add("wf", "b", running("wf", "b"))
    done = loaded(command.run_here(*ids("ab"), "--json", "--quiet", "--strict", max_wait=0), 3)
    assert done.stderr == ""
    place = {"destination": "duckdb", "dataset": "further_data", "location": f"duckdb:///{command.database}"}
    assert json.loads(done.stdout) == {
        "listed": 2,
        "ended": {"completed": 1, "running": 1},
        "earlier": {},
        "kept": {},
        "forgotten": 0,
        "remaining": 0,
        "not_completed": [],
        "not_completed_query": None,
        "rows": {"executions": 2, "steps": 1, "cells": 1, "rows_extract": 1},
        "deliveries": {},
        **place,
        "error": None,
        "exit_code": 3,
    }

    done = loaded(command.run_here("wf/c", "--json", "--quiet", client_secret="wrong"), 1)
    found = json.loads(done.stdout)
    assert {key: found[key] for key in place} == place
    assert (found["listed"], found["remaining"], found["exit_code"]) == (1, 1, 1)
    assert "Invalid client credentials" in found["error"]


def test_quiet_shows_nothing_of_a_normal_load(command: Command, sandbox: Sandbox) -> None:
    serve(sandbox, "a")
    done = loaded(command.run_here(A, "--quiet"))
    assert (done.stdout, done.stderr) == ("", "")
    assert command.outcomes() == {"a": "completed"}


def test_quiet_leaves_warnings_and_errors(command: Command, sandbox: Sandbox) -> None:
    serve(sandbox, "a")
    sandbox.add("wf", "b", {**running("wf", "b"), "status": "odd\x1b[2J"}, completed("wf", "b", []))
    done = loaded(command.run_here(*ids("ab"), "--quiet"))
    assert done.stdout == ""
    (warning,) = done.stderr.splitlines()
    assert "WARNING" in warning
    assert "odd\\x1b[2J" in warning
    line = told(command.run_here("wf/c", "--quiet", client_secret="wrong"), 1)
    assert "Invalid client credentials" in line


@pytest.mark.slow
def test_the_second_run_warns_of_nothing_either(command: Command, sandbox: Sandbox) -> None:
    serve(sandbox, "a", {"x": 1})
    serve(sandbox, "b", {"x": 2, "y": 3})
    loaded(command.run_here("wf/a"))
    done = loaded(command.run_here(*ids("ab")))
    assert "WARNING" not in done.stderr


@pytest.mark.slow
def test_standard_output_of_few_characters_gets_escapes(tmp_path: Path, sandbox: Sandbox) -> None:
    command = Command(tmp_path / "Größe", sandbox)
    command.environment["PYTHONIOENCODING"] = "ascii"
    serve(sandbox, "a")
    done = loaded(command.run(A))
    assert "Gr\\xf6\\xdfe/cwd/further.duckdb" in done.stdout


# Exit codes


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="arrow's memory is chosen on Linux alone")
@pytest.mark.parametrize(
    ("configured", "expected"),
    few_of(
        [
            ({}, ["system", 1, True]),
            (
                {
                    "ARROW_DEFAULT_MEMORY_POOL": "mimalloc",
                    "LOAD__WORKERS": "7",
                    "DATA_WRITER__DISABLE_COMPRESSION": "false",
                },
                ["mimalloc", 7, False],
            ),
        ]
    ),
    ids=["by default", "as configured"],
)
def test_it_chooses_what_nobody_configured(
    command: Command, configured: dict[str, str], expected: list[Any], tmp_path: Path
) -> None:
    """How tables are kept in memory, how many jobs load at once into DuckDB, whether files are compressed."""
    script = tmp_path / "chosen.py"
    script.write_text(
        "import json, sys\nfrom further_source.command.main import main\n"
        "assert main(['load', '--executions', '-', '--quiet']) == 0\nimport dlt, pyarrow\n"
        "print(json.dumps([pyarrow.default_memory_pool().backend_name, dlt.config['load.workers'],"
        " dlt.config.get('data_writer.disable_compression', bool)]))"
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=command.directory,
        env={**command.env(), **configured},
        input="",
        capture_output=True,
        text=True,
        timeout=HANG,
        check=True,
    )
    assert json.loads(done.stdout) == expected


@pytest.mark.slow
def test_strict_exits_3_for_what_did_not_complete_now_or_earlier(command: Command, sandbox: Sandbox) -> None:
    serve(sandbox, "good")
    sandbox.add("wf", "bad", failed("wf", "bad"))
    sandbox.add("wf", "slow", running("wf", "slow"))
    loaded(command.run_here("wf/good", "--strict"))
    loaded(command.run_here("wf/good", "--strict"))  # loaded earlier
    loaded(command.run(*ids(["good", "bad"]), "--strict"), 3)
    loaded(command.run_here(*ids(["good", "bad"]), "--strict"), 3)  # failed earlier
    loaded(command.run_here(*ids(["good", "bad"])))
    loaded(command.run_here(*ids(["good", "slow"]), "--strict", max_wait=0), 3)
    assert command.outcomes() == {"good": "completed", "bad": "failed", "slow": "running"}


@pytest.mark.parametrize("credentials", few_of(["pair", "token"]))
def test_refused_credentials_exit_1_with_what_had_arrived(command: Command, sandbox: Sandbox, credentials: str) -> None:
    for name in "abc":
        serve(sandbox, name)
    sandbox.add("wf", "d", running("wf", "d"), *[Reply(401, {"detail": "Token revoked"})] * 3)
    if credentials == "token":
        command.settings |= {**NO_CREDENTIALS, "access_token": sandbox.issue_token()}
    done = loaded(command.run_here(*ids("abcd"), initial_interval=2, max_interval=2), 1)
    assert done.stderr.splitlines()[-1] == "load.py: 401: Token revoked"
    assert command.outcomes() == dict.fromkeys("abc", "completed")
    assert "1 not ended yet" in done.stdout
    assert cells_of([]) != stored_cells(command)


def test_credentials_refused_from_the_start_exit_1(command: Command, sandbox: Sandbox) -> None:
    line = told(command.run_here(A, "--quiet", client_secret="wrong"), 1)
    assert "Invalid client credentials" in line
    assert asked(sandbox) == {}
    assert not command.database.exists()


@pytest.mark.parametrize("credentials", few_of(["pair", "token"]))
def test_where_nothing_is_loaded_no_database_is_made_and_no_query_offered(
    command: Command, sandbox: Sandbox, credentials: str
) -> None:
    serve(sandbox, "a")
    wrong = {"client_secret": "wrong"} if credentials == "pair" else {**NO_CREDENTIALS, "access_token": "wrong"}
    done = loaded(command.run_here(A, **wrong), 1)
    assert done.stdout.splitlines() == ["1 executions listed", "        1 not ended yet: the next run asks again"]
    assert not command.database.exists()
    assert [path for path in command.pipeline.rglob("*") if "load_package" in path.name] == []

    loaded(command.run_here(A))
    serve(sandbox, "b")
    done = loaded(command.run_here(*ids("ab"), **wrong), 1)
    assert "try:" in done.stdout  # of what was loaded earlier
    assert command.outcomes() == {"a": "completed"}


def test_a_database_that_somebody_made_is_left_where_nothing_is_loaded(command: Command, sandbox: Sandbox) -> None:
    duckdb.connect(str(command.database)).close()
    loaded(command.run_here(A, client_secret="wrong"), 1)
    assert command.database.exists()


@pytest.mark.slow
def test_what_did_not_complete_is_named_with_the_query_for_all(command: Command, sandbox: Sandbox) -> None:
    serve(sandbox, "good")
    for number in range(7):
        sandbox.add("wf", f"bad{number}", failed("wf", f"bad{number}"))
    sandbox.add("wf", "gone", error(404, "No such\x1b[2J execution"))
    sandbox.add("wf", "secret", error(403))
    sandbox.add("wf", "slow", running("wf", "slow"))
    names = ["good", *(f"bad{number}" for number in range(7)), "gone", "secret", "slow"]

    done = loaded(command.run_here(*ids(names), max_wait=0, max_workers=1))

    shown = done.stdout.partition("did not complete\n")[2].partition("all of them:\n")
    lines = [line.split(maxsplit=1) for line in shown[0].splitlines()]
    assert lines[:5] == [["failed", f"wf/bad{number}"] for number in range(5)]
    assert lines[5] == ["failed", "and 2 more"]
    assert [line[0] for line in lines[6:]] == ["not_found", "forbidden"]
    assert lines[6][1] == "wf/gone (404: No such\\x1b[2J execution)"
    query = shown[2].partition(";")[0]
    assert len(command.query(query, schema="main")) == 9

    command.environment["DLT_DATA_DIR"] = str(command.directory / "again")
    found = json.loads(command.run_here(*ids(["gone", "slow"]), "--json", "--quiet", max_wait=0).stdout)
    assert found["not_completed"] == [
        {
            "workflow_id": "wf",
            "workflow_execution_id": "gone",
            "poll_outcome": "not_found",
            "poll_error": "404: No such\\x1b[2J execution",
        }
    ]
    assert len(command.query(found["not_completed_query"], schema="main")) == 9
    found = json.loads(command.run_here("wf/good", "--json", "--quiet").stdout)
    assert (found["not_completed"], found["not_completed_query"]) == ([], None)


@pytest.mark.slow
def test_no_query_is_offered_for_tables_without_cells(command: Command, sandbox: Sandbox) -> None:
    sandbox.add("wf", "a", error(404))
    assert "try:" not in loaded(command.run_here(A)).stdout
    assert "try:" not in loaded(command.run_here("--executions", "-", stdin="")).stdout
    serve(sandbox, "a")
    assert "try:" in loaded(command.run_here(A)).stdout
    assert "try:" in loaded(command.run_here(A)).stdout


@pytest.mark.slow
def test_every_execution_unreachable_exits_1(command: Command, sandbox: Sandbox) -> None:
    serve(sandbox, "good")
    sandbox.add("wf", "a", error(503, "Down"))
    sandbox.add("wf", "b", *[running("wf", "b")] * 30, error(503, "Down too"))  # long enough to be the last
    hurry: dict[str, Any] = {"initial_interval": 0.01, "max_interval": 0.01}
    done = loaded(command.run_here(*ids("ab"), **hurry), 1)
    assert done.stderr.splitlines()[-1] == (
        "load.py: every execution asked was unreachable, the last with: 503: Down too"
    )
    assert asked(sandbox) == {"a": 10, "b": 40}
    assert command.outcomes() == {"a": "unreachable", "b": "unreachable"}

    loaded(command.run_here(*ids(["a", "good"]), initial_interval=0.01, max_interval=0.01))
    sandbox.add("wf", "a", completed("wf", "a", []))
    loaded(command.run_here("wf/a"))
    assert command.outcomes() == {"a": "completed", "b": "unreachable", "good": "completed"}


def test_an_api_that_is_not_there_exits_1(command: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    settings: dict[str, Any] = {"base_url": f"http://127.0.0.1:{port}", "initial_interval": 0.01, "max_interval": 0.01}
    done = loaded(command.run_here(A, **settings), 1)
    assert "connection refused" in done.stderr.splitlines()[-1]


def test_a_database_that_cannot_be_made_exits_1(command: Command, sandbox: Sandbox) -> None:
    command.environment["DESTINATION__DUCKDB__CREDENTIALS"] = str(command.directory / "nowhere" / "x.duckdb")
    done = command.run(A)
    line = told(done, 1)
    assert "destination duckdb failed" in line
    assert "nowhere" in line
    assert done.stdout == ""
    assert sandbox.requests == []


def test_a_working_directory_that_cannot_be_made_exits_1(command: Command, sandbox: Sandbox) -> None:
    command.data_dir.write_text("a file")
    line = told(command.run_here(A), 1)
    assert str(command.data_dir) in line
    assert sandbox.requests == []


@pytest.mark.slow
def test_no_failure_shows_a_traceback_but_the_log_level_does(command: Command, sandbox: Sandbox) -> None:
    serve(sandbox, "a")
    loaded(command.run(A))
    command.database.write_text("{")
    line = told(command.run(A), 1)
    assert line
    command.environment["RUNTIME__LOG_LEVEL"] = "INFO"
    done = command.run(A)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert f"load.py: {line}" in done.stderr.splitlines()


# What is asked, and what is loaded


def test_a_second_run_asks_only_what_has_not_ended(command: Command, sandbox: Sandbox) -> None:
    serve(sandbox, "a")
    sandbox.add("wf", "b", failed("wf", "b"))
    sandbox.add("wf", "c", running("wf", "c"))
    sandbox.add("wf", "d", error(404))
    loaded(command.run_here(*ids("abcd"), max_wait=0))
    assert asked(sandbox) == dict.fromkeys("abcd", 1)

    done = loaded(command.run_here(*ids("abcd"), max_wait=0))
    assert asked(sandbox) == {"a": 1, "b": 1, "c": 2, "d": 2}
    assert "2 loaded earlier (1 completed, 1 failed)" in done.stdout

    shutil.rmtree(command.data_dir)
    serve(sandbox, "c")
    loaded(command.run_here(*ids("abcd"), max_wait=0))
    assert asked(sandbox) == {"a": 1, "b": 1, "c": 3, "d": 3}
    assert command.outcomes() == {"a": "completed", "b": "failed", "c": "completed", "d": "not_found"}
    assert command.query("SELECT workflow_execution_id, value FROM cells ORDER BY 1") == [("a", "a"), ("c", "c")]


def test_reload_replaces_what_shrank(command: Command, sandbox: Sandbox) -> None:
    serve(sandbox, "a", {"x": 1, "y": 2}, {"x": 3})
    serve(sandbox, "b", {"x": 4})
    loaded(command.run_here(*ids("ab")))
    serve(sandbox, "a", {"x": 5})
    sandbox.add("wf", "b", completed("wf", "b", []))
    done = loaded(command.run_here(*ids("ab"), "--reload", "--json"))
    assert json.loads(done.stdout)["rows"] == {"executions": 2, "steps": 1, "cells": 1, "rows_extract": 1}
    assert asked(sandbox) == {"a": 2, "b": 2}
    assert command.query("SELECT workflow_execution_id, field, value FROM cells") == [("a", "x", "5")]
    assert command.query("SELECT workflow_execution_id, row_count FROM steps") == [("a", 1)]
    assert command.query("SELECT workflow_execution_id, x FROM rows_extract") == [("a", 5.0)]

    sandbox.add("wf", "a", error(404))
    done = loaded(command.run_here("wf/a", "--reload", "--strict"))
    assert "what was loaded of it stays" in done.stderr
    assert command.query("SELECT value FROM cells") == [("5",)]


def test_max_wait_of_0_asks_each_once(command: Command, sandbox: Sandbox) -> None:
    for name in "abc":
        serve(sandbox, name, after=None)
    loaded(command.run_here(*ids("abc"), "--max-wait", "0", max_wait=60))
    assert asked(sandbox) == dict.fromkeys("abc", 1)
    assert command.outcomes() == dict.fromkeys("abc", "running")


def test_the_dataset_can_be_named(command: Command, sandbox: Sandbox) -> None:
    serve(sandbox, "a")
    done = loaded(command.run_here(A, "--dataset", "claims_2025"))
    assert "dataset claims_2025," in done.stdout
    assert command.query("SELECT value FROM cells", schema="claims_2025") == [("a",)]


def test_what_a_dataset_is_called_in_the_destination_is_told(command: Command, sandbox: Sandbox) -> None:
    serve(sandbox, "a")
    done = loaded(command.run_here(A, "--dataset", "ClaimsOf2025"))
    query = done.stdout.partition("try:\n")[2]
    assert command.query(query.replace("c.confidence < 0.7", "true"), schema="main")[0][4] == "a"


@pytest.mark.slow
def test_a_dataset_that_is_called_otherwise_there_is_not_warned_of(command: Command, sandbox: Sandbox) -> None:
    serve(sandbox, "a")
    done = loaded(command.run_here(A, "--dataset", "further-data"))
    assert "WARNING" not in done.stderr
    assert "dataset further_data," in done.stdout
    assert command.query("SELECT value FROM cells") == [("a",)]
    serve(sandbox, "b")
    done = loaded(command.run_here(*ids("ab"), "--dataset", "further-data", "--quiet"))
    assert done.stderr == ""
    assert asked(sandbox)["a"] == 1


def test_the_destination_is_as_configured(command: Command, sandbox: Sandbox, tmp_path: Path) -> None:
    serve(sandbox, "a")
    elsewhere = tmp_path / "elsewhere.duckdb"
    command.environment["DESTINATION__DUCKDB__CREDENTIALS"] = str(elsewhere)
    done = loaded(command.run_here(A, "--destination", "duckdb"))
    assert str(elsewhere) in done.stdout
    assert not command.database.exists()
    assert command.query("SELECT value FROM cells", elsewhere) == [("a",)]


@pytest.mark.slow
def test_nothing_is_reported_to_anybody(command: Command, sandbox: Sandbox) -> None:
    serve(sandbox, "a")
    command.environment["RUNTIME__DLTHUB_TELEMETRY_ENDPOINT"] = sandbox.base_url + "/telemetry"
    loaded(command.run(A))
    assert {record.path for record in sandbox.requests if "/telemetry" in record.path} == set()


# The demo


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to see what a process catches")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_list_is_read_ends_it_at_once(command: Command, sandbox: Sandbox, number: int) -> None:
    with command.start("--executions", "-", stdin=subprocess.PIPE) as process:
        until = time.monotonic() + HANG
        while not catches(process.pid, signal.SIGTERM) and time.monotonic() < until:
            time.sleep(0.01)
        process.send_signal(number)

        assert process.wait(HANG) == 128 + number
    assert not sandbox.requests


def catches(pid: int, number: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    (caught,) = re.findall(r"SigCgt:\s*([0-9a-f]+)", status)
    return bool(int(caught, 16) >> (number - 1) & 1)


@pytest.mark.slow
def test_the_demo_loads_what_the_sandbox_serves_cell_for_cell(command: Command, sandbox: Sandbox) -> None:
    (command.directory / ".dlt").mkdir()
    (command.directory / ".dlt" / "config.toml").write_text(
        '[sources.further_source]\nexecutions = ["wf/real"]\nexecutions_file = "nowhere.csv"\n'
        '[destination]\nduckdb.credentials = "real.duckdb"\n'
    )
    (command.directory / ".dlt" / "secrets.toml").write_text('[sources.further_source]\naccess_token = "t"\n')
    command.settings = {"executions": '["wf/other"]', "access_token": "t", "client_id": "half", "reload": None}
    database = command.directory / "further_demo.duckdb"

    done = loaded(command.run_here("--demo"))

    demo = demo_executions()
    payloads = {execution.execution_id: execution.payload for execution in demo}
    assert sandbox.requests == []
    assert {path.name for path in command.directory.iterdir()} == {".dlt", "further_demo.duckdb", "further_demo.html"}
    rows = command.query("SELECT workflow_id, workflow_execution_id, status, poll_outcome FROM executions", database)
    assert sorted(rows) == sorted(
        (one.workflow_id, one.execution_id, one.payload["status"], one.payload["status"]) for one in demo
    )
    expected = cells_of(payloads.values())
    assert len(expected) > 4000
    assert stored_cells(command, database) == expected
    assert "24 executions listed" in done.stdout
    assert "confidence\nLR-2025-1989" in "\n".join(line.strip() for line in done.stdout.splitlines())
    assert "WARNING" not in done.stderr

    first = command.query("SELECT max(_dlt_load_id) FROM executions", database)[0][0]
    done = loaded(command.run_here("--demo", "--max-wait", "0"))
    assert "23 loaded earlier (22 completed, 1 failed)" in done.stdout
    again = command.query(f"SELECT workflow_id, poll_outcome FROM executions WHERE _dlt_load_id > '{first}'", database)
    assert again == [(SUBMISSION_WORKFLOW, "running")]
    assert stored_cells(command, database) == expected


# On a terminal


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no pseudo-terminals")
def test_a_terminal_shows_progress_and_no_control_characters_of_the_api(command: Command, sandbox: Sandbox) -> None:
    evil = "\x1b]0;pwned\x07\x1b[2J"
    sandbox.add("wf", "a", {**running("wf", "a"), "status": evil}, completed("wf", "a", []))
    sandbox.add("wf", "b", Reply(500, {"detail": evil}))
    sandbox.serve("wf", "c", completed("wf", "c", [], **{evil: evil}), after=1.5)
    command.environment["TERM"] = "xterm"
    code, shown = on_terminal(command, *ids("abc"), initial_interval=0.01, max_interval=0.2)
    assert code == 0, shown
    assert "2 completed, 1 unreachable" in shown
    assert "3 of 3 ended" in shown
    assert "\x1b[" in shown  # the bar is alive
    assert "\x1b]0;" not in shown
    assert "\x1b[2J" not in shown
    assert "\x07" not in shown
    assert "3 executions listed" in shown


def on_terminal(command: Command, *arguments: str, **settings: Any) -> tuple[int, str]:
    import pty  # noqa: PLC0415  Windows has none

    ours, theirs = pty.openpty()
    try:
        process = command.start(*arguments, settings=settings, stdin=theirs, stdout=theirs, stderr=theirs)
    finally:
        os.close(theirs)
    shown = b"".join(_read(ours))
    os.close(ours)
    return finish(process).returncode, shown.decode()


def _read(terminal: int) -> Iterator[bytes]:
    with contextlib.suppress(OSError):  # how a pseudo-terminal says that the other side is closed
        while chunk := os.read(terminal, 65536):
            yield chunk
