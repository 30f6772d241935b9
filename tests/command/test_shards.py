"""Parts of one list: loads of all of them side by side into one PostgreSQL."""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from further_source.executions import ExecutionId
from further_source.lock import only_load
from further_source.manifest import shard
from further_source.sandbox import Sandbox, cell, completed, step
from tests.support.command import HANG, WORKFLOW, Command, asked, cells_of, finish, ids, loaded, serve, told, until

COUNT = 4
KEYS = ["workflow_id", "workflow_execution_id", "step_index", "row_index", "_dlt_load_id", "_deleted"]
Query = Callable[[str], list[tuple[Any, ...]]]


@pytest.fixture
def command(tmp_path: Path, sandbox: Sandbox) -> Command:
    return Command(tmp_path, sandbox)


@pytest.mark.parametrize("part", ["0/8", "9/8", "a/b", "8", "1/", "/8", "-1/8", "1/8/2", "1.0/2", "", "٣/8", "1 / 8"])
def test_a_part_that_is_none_is_wrong_usage(part: str, command: Command) -> None:
    line = told(command.run_here("wf/a", f"--shard={part}"), 2)
    assert line == f"argument --shard: {part!r} is no K/N with K from 1 to N"


def test_invented_executions_have_no_parts(command: Command) -> None:
    assert "--shard" in told(command.run_here("--demo", "--shard", "1/2"), 2)


def test_duckdb_takes_no_loads_side_by_side(command: Command, sandbox: Sandbox) -> None:
    assert "DuckDB" in told(command.run_here("wf/a", "--shard", "1/2"), 2)

    assert not sandbox.requests
    assert not any(command.directory.glob("*.duckdb"))


def test_files_take_no_loads_side_by_side(command: Command, sandbox: Sandbox) -> None:
    command.environment["DESTINATION__FILESYSTEM__BUCKET_URL"] = str(command.directory / "lake")

    assert "SQL" in told(command.run_here("wf/a", "--shard", "1/2", "--destination", "filesystem"), 2)
    assert not sandbox.requests


@pytest.fixture
def dataset(postgres_url: str) -> Iterator[str]:
    name = "further_shards"
    yield name
    connection = psycopg2.connect(postgres_url)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT nspname FROM pg_namespace WHERE starts_with(nspname, %s)", [name])
        schemas = ", ".join([name, *(row[0] for row in cursor.fetchall())])
        cursor.execute(f"SET lock_timeout = '30s'; DROP SCHEMA IF EXISTS {schemas} CASCADE")
    connection.close()


@pytest.fixture
def postgres(command: Command, postgres_url: str, dataset: str) -> list[str]:
    """The arguments of a load into the dataset."""
    command.environment["DESTINATION__POSTGRES__CREDENTIALS"] = postgres_url
    return ["--destination", "postgres", "--dataset", dataset, "--quiet"]


@pytest.fixture
def query(postgres_url: str, dataset: str) -> Iterator[Query]:
    connection = psycopg2.connect(postgres_url, options=f"-c search_path={dataset}")
    connection.autocommit = True

    def run(sql: str) -> list[tuple[Any, ...]]:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    yield run
    connection.close()


def test_a_part_is_a_pipeline_of_its_own_with_a_lock_of_its_own(
    command: Command, sandbox: Sandbox, postgres: list[str], query: Query
) -> None:
    names = [f"ex-{number}" for number in range(12)]
    for name in names:
        serve(sandbox, name)
    pipelines = command.data_dir / "pipelines"
    with only_load("further", str(pipelines)), only_load("further_shard_1_of_2", str(pipelines)):
        assert "pipeline further_shard_1_of_2 is running" in told(
            command.run_here(*ids(names), "--shard=1/2", *postgres), 75
        )
        loaded(command.run_here(*ids(names), "--shard=2/2", *postgres))
    (second,) = zip(*query("SELECT workflow_execution_id FROM executions"), strict=True)
    assert 0 < len(second) < 12
    assert asked(sandbox) == Counter(second)

    loaded(command.run_here(*ids(names), "--shard=1/2", *postgres))

    assert query("SELECT count(*) FROM executions") == [(12,)]
    assert asked(sandbox) == Counter(names)
    assert (pipelines / "further_shard_1_of_2").is_dir()
    assert not (pipelines / "further").exists()


@pytest.mark.slow
def test_all_lists_are_cut_and_another_number_of_parts_asks_nothing_again(
    command: Command, sandbox: Sandbox, postgres: list[str], query: Query
) -> None:
    names = [f"ex-{number}" for number in range(8)]
    for name in names:
        serve(sandbox, name)
    (command.directory / "configured.txt").write_text("\n".join(ids(names[:3])))
    (command.directory / "given.txt").write_text("\n".join(ids(names[3:5])))
    command.settings |= {"executions_file": "configured.txt", "executions": f'["{ids(names)[5]}"]'}
    arguments = [*ids(names[6:]), "--executions", "given.txt", *postgres]

    everyone = [ExecutionId(WORKFLOW, name) for name in names]
    for index in (2, 1):
        before = asked(sandbox)
        loaded(command.run_here(*arguments, "--shard", f"{index}/2"))
        part = [execution.workflow_execution_id for execution in shard(everyone, index, 2)]
        assert 0 < len(part) < 8
        assert asked(sandbox) - before == Counter(part)
    loaded(command.run_here(*arguments, "--shard", "1/1"))

    assert query("SELECT count(*) FROM executions") == [(8,)]
    assert asked(sandbox) == Counter(names)


@pytest.mark.slow
def test_a_part_that_replaces_takes_away_what_another_one_loaded(
    command: Command, sandbox: Sandbox, postgres: list[str], query: Query
) -> None:
    """Also from tables that it does not know itself."""
    execution = ExecutionId("wf-0", "ex-0")
    index = next(index for index in (1, 2) if list(shard([execution], index, 2)))
    for part, name, value in (("1/1", "Old", 1), (f"{index}/2", "New", "x")):
        steps = [step(name, [{"a": cell(value, 0.5)}])]
        sandbox.serve(*execution, completed(*execution, steps))
        loaded(command.run_here(str(execution), "--shard", part, "--reload", *postgres))

    assert query("SELECT count(*) FROM rows_old") == [(0,)]
    assert query("SELECT workflow_execution_id, a FROM rows_new") == [(execution.workflow_execution_id, "x")]
    assert query("SELECT count(*) FROM executions") == query("SELECT count(*) FROM cells") == [(1,)]


def columns(query: Query, table: str) -> list[str]:
    where = f"table_schema = current_schema AND table_name = '{table}'"
    return [name for (name,) in query(f"SELECT column_name FROM information_schema.columns WHERE {where}")]


def serve_much(sandbox: Sandbox) -> dict[str, dict[str, Any]]:
    """80 executions of 6 kinds of steps, whose columns come up one by one and change their types all the time."""
    payloads = {}
    for number in range(80):
        name = f"ex-{number}"
        rows = [
            {
                "amount": cell([number + 0.5, f"{number}", number % 4 == 0][number % 3], 0.9),
                f"field {number % 17}": cell(["x", 1.0, None, True][(number // 4 + row) % 4], 0.5),
                f"Only of {number}": cell("y", 0.25),
            }
            for row in range(3)
        ]
        steps = [step(f"Step {number % 5}", rows)]
        if number % 2:
            steps.append(step("Totals", [{"total": cell(float(number) if number % 3 else str(number), 1.0)}]))
        keys = {"external_id": f"E-{number}", f"k{number % 7}": [1, "x", 2.5, "2024-01-01T00:00:00Z", True][number % 5]}
        payloads[name] = completed(WORKFLOW, name, steps, metadata=keys)
        sandbox.serve(WORKFLOW, name, payloads[name])
    return payloads


@pytest.mark.slow
def test_loads_side_by_side_meet_in_one_dataset(
    command: Command, sandbox: Sandbox, postgres: list[str], query: Query
) -> None:
    payloads = serve_much(sandbox)
    (command.directory / "list.txt").write_text("\n".join(ids(payloads)))
    arguments = ["--executions", "list.txt", "--strict", *postgres]

    def load_all() -> None:
        processes = [command.start(*arguments, "--shard", f"{index}/{COUNT}") for index in range(1, COUNT + 1)]
        for process in processes:
            done = loaded(finish(process))
            assert (done.stdout, done.stderr) == ("", "")  # a normal load warns of nothing

    load_all()
    assert asked(sandbox) == Counter(payloads.keys())
    assert_loaded(query, payloads)

    load_all()
    assert asked(sandbox) == Counter(payloads.keys()), "what is loaded is not asked again"
    assert_loaded(query, payloads)


# Parts that die, move to another machine, or are cut anew


def serve_half(sandbox: Sandbox) -> dict[str, dict[str, Any]]:
    """What `serve_much` serves, of which every second one runs until it is served again."""
    payloads = serve_much(sandbox)
    for name in [*payloads][::2]:
        sandbox.serve(WORKFLOW, name, payloads[name], after=None)
    return payloads


def finish_all(command: Command, arguments: list[str], parts: list[str]) -> None:
    """Loads parts side by side, each again and again while the lease of one that died keeps it out."""
    deadline = time.monotonic() + HANG
    while parts:
        assert time.monotonic() < deadline, f"{parts} are kept out for ever"
        processes = {part: command.start(*arguments, "--shard", part) for part in parts}
        ended = {part: finish(process) for part, process in processes.items()}
        parts = [part for part, done in ended.items() if done.returncode == 75]
        for done in ended.values():
            loaded(done, 75 if done.returncode == 75 else 0)


def pending(command: Command, part: str) -> list[Path]:
    """The packages of a part that wait to be loaded, or are being loaded."""
    name = f"further_shard_{part.replace('/', '_of_')}"
    found = (command.data_dir / "pipelines" / name / "load" / "normalized").glob("*")
    return [path for path in found if path.is_dir()]  # a kill may leave a file that dlt was writing


def kill(*processes: Any) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        process.communicate()


@pytest.fixture
def died(command: Command, postgres: list[str]) -> list[str]:
    """The arguments of loads that do not wait for long: for others, and until what has arrived is loaded."""
    command.settings |= {"lease_duration": 5, "commit_interval": 0.5}
    return ["--executions", str(command.directory / "list.txt"), *postgres]


@pytest.fixture
def elsewhere(command: Command, died: list[str], tmp_path: Path, sandbox: Sandbox) -> Command:
    """The command on another machine: in another directory, with nothing of what the first one knows."""
    other = Command(tmp_path / "elsewhere", sandbox, **command.settings)
    other.environment = command.environment
    return other


@pytest.fixture
def start(command: Command, died: list[str], postgres: list[str]) -> Iterator[Callable[[str], Any]]:
    """Starts the load of a part; what still runs at the end of the test is killed."""
    processes = []

    def started(part: str) -> Any:
        processes.append(command.start(*died, "--shard", part))
        return processes[-1]

    yield started
    kill(*(process for process in processes if process.returncode is None))


def executions(query: Query, joined: str = "") -> set[str]:
    try:
        return {name for (name,) in query(f"SELECT workflow_execution_id FROM executions {joined}")}
    except psycopg2.errors.UndefinedTable:
        return set()


def held(query: Query) -> set[str]:
    """Those that ended, of loads that came to their end: others are asked again, for a table may lack some of them."""
    return executions(query, "JOIN _dlt_loads ON load_id = executions._dlt_load_id WHERE poll_outcome = 'completed'")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("dies", ["within a load", "between two loads"])
def test_a_part_that_died_is_loaded_elsewhere(
    dies: str,
    command: Command,
    elsewhere: Command,
    sandbox: Sandbox,
    died: list[str],
    start: Callable[[str], Any],
    query: Query,
) -> None:
    payloads = serve_half(sandbox)
    (command.directory / "list.txt").write_text("\n".join(ids(payloads)))
    everyone = [ExecutionId(WORKFLOW, name) for name in payloads]
    second = {execution.workflow_execution_id for execution in shard(everyone, 2, COUNT)}
    done = second & {*[*payloads][1::2]}
    parts = [f"{index}/{COUNT}" for index in range(1, COUNT + 1)]

    processes = {part: start(part) for part in parts}
    part = f"2/{COUNT}"
    dying = processes.pop(part)
    if dies == "within a load":
        until(lambda: second & executions(query), dying, every=0.001)
    else:
        until(lambda: held(query) >= done, dying)
    kill(dying)
    before, kept = asked(sandbox), held(query)
    for name in [*payloads][::2]:
        sandbox.serve(WORKFLOW, name, payloads[name])
    finish_all(elsewhere, died, [part])

    again = asked(sandbox) - before
    assert second - kept <= again.keys() <= payloads.keys() - (second & kept), "what is loaded is not asked"
    for process in processes.values():
        loaded(finish(process))
    assert_loaded(query, payloads)

    # The machine comes back, with what it had not loaded.
    before = asked(sandbox)
    loaded(command.run_here(*died, "--shard", part))
    assert not pending(command, part)
    assert asked(sandbox) == before
    assert_loaded(query, payloads)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_four_parts_that_died_are_three_on_other_machines(
    command: Command,
    elsewhere: Command,
    sandbox: Sandbox,
    died: list[str],
    start: Callable[[str], Any],
    query: Query,
) -> None:
    payloads = serve_half(sandbox)
    (command.directory / "list.txt").write_text("\n".join(ids(payloads)))
    parts = [f"{index}/{COUNT}" for index in range(1, COUNT + 1)]

    processes = [start(part) for part in parts]
    until(lambda: held(query), processes[0])
    until(lambda: any(pending(command, part) for part in parts), processes[0], every=0.001)
    kill(*processes)
    for name in [*payloads][::2]:
        sandbox.serve(WORKFLOW, name, payloads[name])
    before, kept = asked(sandbox), held(query)
    assert kept < payloads.keys()
    finish_all(elsewhere, died, ["1/3", "2/3", "3/3"])

    assert asked(sandbox) - before == Counter(payloads.keys() - kept)
    assert_loaded(query, payloads)

    # The four come back, with what they had not loaded.
    for part in parts:
        loaded(command.run_here(*died, "--shard", part))
        assert not pending(command, part)
    assert asked(sandbox) - before == Counter(payloads.keys() - kept)
    assert_loaded(query, payloads)


@pytest.fixture
def refuse(query: Query) -> Iterator[Callable[[str, str, str], None]]:
    """Has PostgreSQL say twice, as if another load was faster, that what a statement makes exists.

    It is told the statement's tag, a text in it, and the error.
    """

    def begin(tag: str, text: str, error: str) -> None:
        query(
            f"""
            CREATE SEQUENCE public.refused;
            CREATE FUNCTION public.refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
                IF strpos(current_query(), '{text}') > 0 AND nextval('public.refused') <= 2 THEN
                    RAISE {error};
                END IF;
            END $$;
            CREATE EVENT TRIGGER refuse ON ddl_command_start WHEN TAG IN ('{tag}') EXECUTE FUNCTION public.refuse();
            SELECT 1
            """
        )

    yield begin
    query("DROP EVENT TRIGGER refuse; DROP FUNCTION public.refuse; DROP SEQUENCE public.refused; SELECT 1")


@pytest.mark.slow
def test_a_table_that_another_load_made_first_is_no_failure(
    command: Command, sandbox: Sandbox, postgres: list[str], query: Query, refuse: Callable[[str, str, str], None]
) -> None:
    serve(sandbox, "ex")
    refuse("CREATE TABLE", "_dlt_loads", "duplicate_table")

    loaded(command.run_here("wf/ex", "--shard=1/1", *postgres))

    assert query("SELECT workflow_execution_id FROM executions") == [("ex",)]
    assert query("SELECT last_value FROM public.refused")[0][0] > 2


@pytest.mark.slow
def test_a_column_that_another_load_added_first_is_no_failure(
    command: Command, sandbox: Sandbox, postgres: list[str], query: Query, refuse: Callable[[str, str, str], None]
) -> None:
    first, second = (ids(name for name in ("a", "b", "c", "d") if part_of(name) == index)[0] for index in (1, 2))
    serve(sandbox, first.removeprefix(f"{WORKFLOW}/"))
    loaded(command.run_here(first, "--shard=1/2", *postgres))
    query("ALTER TABLE steps DROP COLUMN row_count; SELECT 1")
    refuse("ALTER TABLE", 'ADD COLUMN "row_count"', "duplicate_column")
    other = second.removeprefix(f"{WORKFLOW}/")
    sandbox.serve(WORKFLOW, other, completed(WORKFLOW, other, [step("Other", [{"a": cell(1, 0.5)}])]))

    loaded(command.run_here(second, "--shard=2/2", *postgres))

    assert query("SELECT row_count FROM steps ORDER BY row_count NULLS LAST") == [(1,), (None,)]
    assert query("SELECT last_value FROM public.refused")[0][0] > 2


def part_of(name: str) -> int:
    return next(index for index in (1, 2) if list(shard([ExecutionId(WORKFLOW, name)], index, 2)))


def assert_loaded(query: Query, payloads: dict[str, dict[str, Any]]) -> None:
    """Every execution, step, cell and wide row is there exactly once, as it was served."""
    executions = query("SELECT workflow_execution_id, metadata__external_id, poll_outcome FROM executions")
    assert sorted(executions) == sorted((name, f"E-{name[3:]}", "completed") for name in payloads)
    steps = query("SELECT workflow_execution_id, step_index, step_name FROM steps")
    assert sorted(steps) == sorted(
        (name, index, one["step_name"])
        for name, payload in payloads.items()
        for index, one in enumerate(payload["steps"])
    )
    cells = query(
        "SELECT workflow_id, workflow_execution_id, step_index, step_name, row_index, field, value, value_type, "
        "confidence FROM cells"
    )
    assert sorted(cells, key=repr) == cells_of(payloads.values())
    assert_wide(query, payloads)
    assert_metadata(query, payloads)


def assert_wide(query: Query, payloads: dict[str, dict[str, Any]]) -> None:
    """Each value stands in the column of its field or in that of its type, and nowhere is more."""
    stored: list[tuple[str, int, int, dict[str, Any]]] = []
    for table in {f"rows_step_{number}" for number in range(5)} | {"rows_totals"}:
        fields = [name for name in columns(query, table) if name not in KEYS and not name.endswith("__confidence")]
        for *key, record in query(f"SELECT {', '.join(KEYS[1:4])}, to_jsonb({table}) FROM {table}"):
            values = {name: record[name] for name in fields if record[name] is not None}
            for name, value in values.items():
                assert record[f"{field_of(name)}__confidence"] is not None, (key, name, value)
            assert len({field_of(name) for name in values}) == len(values), (key, values)
            stored.append((*key, {field_of(name): values[name] for name in sorted(values)}))
    assert sorted(stored, key=repr) == sorted(
        (
            (name, step_index, row_index, served(row))
            for name, payload in payloads.items()
            for step_index, one in enumerate(payload["steps"])
            for row_index, row in enumerate(one["data"]["data"])
        ),
        key=repr,
    )


def served(row: dict[str, Any]) -> dict[str, Any]:
    """A served row's values by column, in the order of the columns' names."""
    values = {field.lower().replace(" ", "_"): content["value"] for field, content in row.items()}
    return {name: value for name, value in sorted(values.items()) if value is not None}


def field_of(column: str) -> str:
    return column.partition("__v_")[0]


def assert_metadata(query: Query, payloads: dict[str, dict[str, Any]]) -> None:
    """No key of an answer is lost, whatever the type its column has."""
    names = [name for name in columns(query, "executions") if name.startswith("metadata__k")]
    for name, *values in query(f"SELECT workflow_execution_id, {', '.join(names)} FROM executions"):
        stored = {column.split("__")[1] for column, value in zip(names, values, strict=True) if value is not None}
        assert stored == payloads[name]["metadata"].keys() - {"external_id"}, name
