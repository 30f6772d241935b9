"""The recipes in SQL that read what documents print: the same answers from every engine they are written for.

DuckDB and PostgreSQL are real. BigQuery's are parsed as its dialect, and run as what sqlglot makes of them for DuckDB.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import date
from decimal import Decimal
from typing import Any

import duckdb
import psycopg2
import pytest
import sqlglot
from sqlglot import exp

from tests.support.documents import PROJECT, Document, names

QUERIES = Document(PROJECT / "docs" / "queries.md")
RECIPES = PROJECT / "docs" / "recipes"
ENGINES = ["duckdb", "postgresql", "bigquery"]

Fetch = Callable[[str], list[tuple[Any, ...]]]

# Beyond what the documentation shows: with '.', with ',', currency.
AMOUNTS: dict[str | None, tuple[str | None, str | None, str | None]] = {
    None: (None, None, None),
    "": (None, None, None),
    " ": (None, None, None),
    " 1,250.00 ": ("1250", "1250", None),
    "00012": ("12", "12", None),
    "1\N{NO-BREAK SPACE}234,56": ("1234.56", "1234.56", None),
    "1\N{NARROW NO-BREAK SPACE}234\N{NARROW NO-BREAK SPACE}567": ("1234567", "1234567", None),
    "1\N{RIGHT SINGLE QUOTATION MARK}234": ("1234", "1234", None),
    "1 234'567": (None, None, None),
    "\N{MINUS SIGN}5": ("-5", "-5", None),
    "\N{EN DASH}5": (None, None, None),
    "$-5": ("-5", "-5", "$"),
    "$(5)": ("-5", "-5", "$"),
    "$ 1,250.00": ("1250", "1250", "$"),
    "US$1,250.00": ("1250", "1250", "US$"),
    "$1,250.00 USD": (None, None, None),
    "€5£": (None, None, None),
    "5 SEK": (None, None, None),
    "--5": (None, None, None),
    "(-5)": (None, None, None),
    "(5": (None, None, None),
    "-": (None, None, None),
    "$": (None, None, "$"),
    "1,234.": (None, None, None),
    "1..5": (None, None, None),
    "1,2345": (None, "1.2345", None),
    "1,234.567": ("1234.567", "1234.567", None),
    "1.234,567": ("1234.567", "1234.567", None),
    "1234,567": (None, "1234.567", None),
    "1234.567": ("1234.567", None, None),
    "0,123.45": (None, None, None),
    "1,234,56": (None, None, None),
    "1.234.56": (None, None, None),
    "1,234.567.890": (None, None, None),
    "1,000 - 2,000": (None, None, None),
    "5 USD 7": (None, None, None),
    "No. 5": (None, None, None),
    "#5": (None, None, None),
    "10k": (None, None, None),
    "5%": (None, None, None),
    "1e5": (None, None, None),
    "true": (None, None, None),
    "[5]": (None, None, None),
    '{"a":5}': (None, None, None),
}
PERCENTAGES: dict[str | None, str | None] = {
    None: None,
    "": None,
    "%": None,
    "100%": "100",
    "1000%": None,
    "0,5%": "0.5",
    "(5%)": None,
    "5 % 6": None,
    "1.5.2%": None,
}
# Beyond what the documentation shows: with 'MDY', with 'DMY'.
DATES: dict[str | None, tuple[str | None, str | None]] = {
    None: (None, None),
    "": (None, None),
    "2024-1-5": ("2024-01-05", "2024-01-05"),
    "2024/01/31": ("2024-01-31", "2024-01-31"),
    "2024.01.31": ("2024-01-31", "2024-01-31"),
    "2024-01-31 10:00": ("2024-01-31", "2024-01-31"),
    "2024-02-30": (None, None),
    "2023-02-29": (None, None),
    "2024-13-01": (None, None),
    "2024-00-10": (None, None),
    "2024-10-00": (None, None),
    "12/31/2024 11:59 PM": ("2024-12-31", "2024-12-31"),
    "01-02-2024": ("2024-01-02", "2024-02-01"),
    "03/03/2024": ("2024-03-03", "2024-03-03"),
    "3.3.2024": ("2024-03-03", "2024-03-03"),
    "13/13/2024": (None, None),
    "32/01/2024": (None, None),
    "January 2,2024": ("2024-01-02", "2024-01-02"),
    "jan 2nd, 2024": ("2024-01-02", "2024-01-02"),
    "SEPT. 5 2024": ("2024-09-05", "2024-09-05"),
    "August 1st 2024": ("2024-08-01", "2024-08-01"),
    "Feb 30, 2024": (None, None),
    "Marble 3, 2024": (None, None),
    "Thursday, January 2, 2024": (None, None),
    "Jan 2024": (None, None),
    "1/2024": (None, None),
    "2024": (None, None),
    "20240131": (None, None),
    "01/02/2024 - 01/02/2025": (None, None),
    "31/12/99": (None, None),
    "2/29/23": (None, None),
}


def translated(sql: str) -> str:
    """What BigQuery would be given, as DuckDB can run it."""
    translations = []
    for statement in sqlglot.parse(sql, read="bigquery"):
        assert statement is not None
        assert not isinstance(statement, exp.Command), "not understood as BigQuery's dialect"
        for replacement in statement.find_all(exp.RegexpReplace):
            replacement.set("modifiers", exp.Literal.string("g"))  # BigQuery always replaces all
        for data_type in statement.find_all(exp.DataType):
            if data_type.this == exp.DataType.Type.DECIMAL:
                data_type.replace(exp.DataType.build("DECIMAL(38, 9)"))  # which is what NUMERIC is there
        translations.append(statement.sql("duckdb"))
    return ";\n".join(translations)


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def fetch(engine: str, request: pytest.FixtureRequest) -> Iterator[Fetch]:
    """Asks an engine that has the functions, and an empty schema `recipes`."""
    functions = (RECIPES / f"{engine}.sql").read_text(encoding="utf-8")
    if engine == "postgresql":
        server = psycopg2.connect(request.getfixturevalue("postgres_url"))
        with closing(server), server.cursor() as cursor:

            def ask(query: str) -> list[tuple[Any, ...]]:
                cursor.execute(query)
                return cursor.fetchall() if cursor.description else []

            ask("CREATE SCHEMA recipes; SET search_path TO recipes")
            ask(functions)
            yield ask
            server.rollback()  # nothing of it is left for other tests
    else:
        with duckdb.connect() as connection:
            connection.execute("CREATE SCHEMA recipes")
            connection.execute(translated(functions) if engine == "bigquery" else functions)
            yield lambda query: connection.execute(query).fetchall()


def literal(value: object) -> str:
    return "NULL" if value is None else "'{}'".format(str(value).replace("'", "''"))


def answers(fetch: Fetch, printed: list[str | None], columns: str) -> dict[str | None, tuple[Any, ...]]:
    """What the columns are for each text, of a table that holds them all."""
    rows = ", ".join(f"({number}, {literal(text)})" for number, text in enumerate(printed))
    found = fetch(f"SELECT {columns} FROM (VALUES {rows}) AS printed (number, value) ORDER BY number")
    return dict(zip(printed, found, strict=True))


def documented(heading: str) -> dict[str | None, tuple[str | None, ...]]:
    """What a table of the page says, null as None."""
    [[_, *rows]] = QUERIES.tables(heading)
    return {names(text)[0]: tuple(None if cell in ("", "null") else cell for cell in cells) for text, *cells in rows}


def amount(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def day(text: str | None) -> date | None:
    return None if text is None else date.fromisoformat(text)


def test_amounts_are_read_as_documented_or_not_at_all(fetch: Fetch) -> None:
    expected = {**documented("How amounts are read"), **AMOUNTS}

    found = answers(
        fetch,
        [*expected],
        "amount_of(value, 'string', '.'), amount_of(value, 'string', ','), currency_of(value)",
    )

    assert found == {
        text: (amount(point), amount(comma), currency) for text, (point, comma, currency) in expected.items()
    }


def test_numbers_of_the_api_are_taken_as_they_are(fetch: Fetch) -> None:
    numbers: list[str | None] = ["1.234", "-0.5", "1250", "1e-05", "123456789012"]

    for mark in ".,":
        found = answers(fetch, numbers, f"amount_of(value, 'number', '{mark}')")
        assert found == {text: (amount(text),) for text in numbers}


def test_more_digits_than_an_engine_keeps_are_null_or_all_there(fetch: Fetch, engine: str) -> None:
    digits = "1" * 35

    [(found,)] = answers(fetch, [digits], "amount_of(value, 'string', '.')").values()
    assert found == (Decimal(digits) if engine == "postgresql" else None)
    [(found,)] = answers(fetch, ["999,999,999,999.99"], "amount_of(value, 'string', '.')").values()
    assert found == Decimal("999999999999.99")


def test_percentages_are_read_as_documented_or_not_at_all(fetch: Fetch) -> None:
    expected = {**{text: percent for text, (percent,) in documented("How percentages are read").items()}, **PERCENTAGES}

    found = answers(fetch, [*expected], "percent_of(value)")

    assert found == {text: (amount(percent),) for text, percent in expected.items()}


def test_dates_are_read_as_documented_or_not_at_all(fetch: Fetch) -> None:
    expected = {**documented("How dates are read"), **DATES}

    found = answers(fetch, [*expected], "date_of(value, 'MDY'), date_of(value, 'DMY')")

    assert found == {text: (day(month_first), day(day_first)) for text, (month_first, day_first) in expected.items()}


# The queries


def given(fetch: Fetch, executions: list[str], cells: list[tuple[str, str, str | None, str]]) -> None:
    """Tables of a dataset `recipes`, as far as the queries look at them."""
    keys = "workflow_id text, workflow_execution_id text"
    fetch("DROP TABLE IF EXISTS recipes.executions")
    fetch("DROP TABLE IF EXISTS recipes.cells")
    fetch(f"CREATE TABLE recipes.executions ({keys}, metadata__external_id text)")
    fetch(
        f"CREATE TABLE recipes.cells ({keys}, step_index bigint, step_name text, row_index bigint, field text, "
        "value text, value_type text)"
    )
    for name in executions:
        fetch(f"INSERT INTO recipes.executions VALUES ('wf', '{name}', 'X-{name}')")
    for row, (name, field, value, value_type) in enumerate(cells):
        fetch(
            f"INSERT INTO recipes.cells VALUES ('wf', '{name}', 0, 'Extract Claims', {row}, '{field}', "
            f"{literal(value)}, '{value_type}')"
        )


def asked(fetch: Fetch, engine: str, language: str, words: str) -> list[tuple[Any, ...]]:
    """What the query of the page with these words returns, on the dataset `recipes`."""
    [code] = [block.code for block in QUERIES.blocks(language) if words in block.code]
    code = code.strip().rstrip(";")
    return fetch((translated(code) if engine == "bigquery" else code).replace("further_data.", "recipes."))


def test_a_sum_tells_what_it_leaves_out(fetch: Fetch, engine: str) -> None:
    printed = [
        ("a", "1,000.50", "string"),
        ("a", "(0.50)", "string"),
        ("a", "1.234", "string"),
        ("a", "see schedule", "string"),
        ("a", "", "string"),
        ("a", None, "null"),
        ("a", "1.234", "number"),
        ("b", "$5", "string"),
        ("b", "€ 1,50", "string"),
    ]
    given(fetch, ["a", "b"], [(name, "incurred", value, value_type) for name, value, value_type in printed])

    rows = asked(fetch, engine, "sql", "string_agg(DISTINCT")

    [a, b] = sorted(rows)
    assert a == ("X-a", Decimal("1001.234"), None, 7, 2)
    assert (*b[:2], *b[3:]) == ("X-b", Decimal("6.5"), 2, 0)
    assert sorted(b[2].split()) == ["$", "€"]


def test_tables_in_cells_become_rows(fetch: Fetch, engine: str) -> None:
    items = ['{"name":"Collision","limit":"$1,000"}', '{"name":"Glass"}', '"loose"', "7"]
    cells = [
        ("a", "coverages", f"[{','.join(items)}]", "array"),
        ("a", "none", "[]", "array"),
        ("a", "holder", '{"name":"not a table"}', "object"),
        ("a", "text", "[not JSON", "string"),
        ("a", "nothing", None, "null"),
        ("a", "names", '["one"]', "array"),
    ]
    given(fetch, ["a"], cells)
    language = {"duckdb": "sql", "postgresql": "postgresql", "bigquery": "googlesql"}[engine]

    rows = asked(fetch, engine, language, "item_index")

    first = 1 if engine == "bigquery" else 0  # as translated: sqlglot leaves DuckDB's counting from 1
    keys = ("wf", "a", 0)
    assert rows == [
        (*keys, 0, "coverages", first, items[0], "Collision", "$1,000"),
        (*keys, 0, "coverages", first + 1, items[1], "Glass", None),
        (*keys, 0, "coverages", first + 2, items[2], None, None),
        (*keys, 0, "coverages", first + 3, items[3], None, None),
        (*keys, 5, "names", first, '"one"', None, None),
    ]
    assert [json.loads(row[6]) for row in rows[:4]] == json.loads(cells[0][2] or "")
