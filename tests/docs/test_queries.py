"""The queries, tables and output that are documented, on a database with the executions of the demo."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dlt
import duckdb
import pytest
from dlt.common.normalizers.naming.snake_case import NamingConvention

from further_source import Report
from further_source.command.display import review_query, summary, text_table
from further_source.pipeline import PipelineSettings
from further_source.settings import DATASET_NAME
from further_source.tables.names import column_name
from tests.support.demo import load_demo
from tests.support.documents import PROJECT, Block, Document, names

README = Document(PROJECT / "README.md")
QUERIES = Document(PROJECT / "docs" / "queries.md")
TABLES = Document(PROJECT / "docs" / "tables.md")
RECIPES = PROJECT / "docs" / "recipes" / "duckdb.sql"
TYPES = {"text": "VARCHAR", "bigint": "BIGINT", "double": "DOUBLE", "bool": "BOOLEAN"}
TYPES["timestamp"] = "TIMESTAMP WITH TIME ZONE"


@dataclass(frozen=True)
class Demo:
    path: Path
    report: Report

    def fetch(self, query: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self.path), read_only=True) as connection:
            connection.execute(RECIPES.read_text(encoding="utf-8"))
            return connection.sql(query).fetchall()

    def columns(self, table: str) -> dict[str, str]:
        return dict(
            self.fetch(
                f"SELECT column_name, data_type FROM information_schema.columns "
                f"WHERE table_schema = '{DATASET_NAME}' AND table_name = '{table}'"
            )
        )


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """What `load.py --demo` loads, without the waiting."""
    directory = tmp_path_factory.mktemp("demo")
    pipeline = dlt.pipeline(
        "further_demo",
        pipelines_dir=str(directory / "pipelines"),
        destination=dlt.destinations.duckdb(str(directory / "further_demo.duckdb")),
        dataset_name=DATASET_NAME,
    )
    report = load_demo(pipeline)
    return Demo(directory / "further_demo.duckdb", report)


def rows_of(demo: Demo, about: str) -> list[tuple[Any, ...]]:
    """What the query returns that follows the paragraph with these words."""
    match = re.search(rf"^{re.escape(about)}.*?```sql\n(.*?)```", QUERIES.text, re.MULTILINE | re.DOTALL)
    assert match, about
    return demo.fetch(match[1])


@pytest.mark.parametrize("block", QUERIES.blocks("sql"), ids=str)
def test_a_query_returns_rows_unless_it_says_otherwise(demo: Demo, block: Block) -> None:
    rows = demo.fetch(block.code)

    assert bool(rows) != ("-- returns no row today" in block.code)


def test_there_are_a_dozen_queries_and_more() -> None:
    assert len(QUERIES.blocks("sql")) >= 12


def test_the_review_queue_is_the_query_that_the_command_suggests(demo: Demo) -> None:
    review = demo.fetch(review_query(DATASET_NAME))

    rows = rows_of(demo, "The review queue")
    assert [row[-1] for row in rows[: len(review)]] == [row[-1] for row in review]
    assert all(confidence < 0.7 for *_, confidence in rows)


def test_what_did_not_complete_is_one_that_failed_and_one_that_runs(demo: Demo) -> None:
    rows = rows_of(demo, "What did not complete")

    assert [row[:3] for row in rows] == [
        ("LR-2025-0391", "failed", "failed"),
        ("SUB-2025-0088", "running", "running"),
    ]
    assert rows[0][4:6] == ("document_unreadable", "The PDF is password protected")


def test_executions_still_running_are_those_of_the_report(demo: Demo) -> None:
    assert len(rows_of(demo, "Executions that were still running")) == demo.report.ended["running"] == 1


def test_what_the_last_load_brought_is_all(demo: Demo) -> None:
    assert len(rows_of(demo, "What the last load brought")) == demo.report.listed


def test_the_histogram_counts_every_cell(demo: Demo) -> None:
    assert sum(count for _, count, _ in rows_of(demo, "A histogram")) == demo.report.rows["cells"]


def test_completeness_counts_every_execution_and_cell_once(demo: Demo) -> None:
    rows = rows_of(demo, "Completeness per workflow")

    assert sum(row[1] for row in rows) == demo.report.listed
    assert sum(row[2] for row in rows) == demo.report.ended["completed"]
    assert sum(row[3] for row in rows) == demo.report.rows["cells"]


def test_sums_from_cells_include_amounts_that_are_text(demo: Demo) -> None:
    sums = rows_of(demo, "Sums from `cells`")

    assert sum(claims for *_, claims, _ in sums) == demo.report.rows["rows_extract_claims"]
    assert all(incurred is not None for _, incurred, *_ in sums)
    assert {currencies for _, _, currencies, *_ in sums} == {None, "$"}
    assert all(not_sure == 0 for *_, not_sure in sums)
    [(with_text,)] = demo.fetch(
        f"SELECT count(*) FROM {DATASET_NAME}.cells WHERE field = 'incurred' AND value_type = 'string'"
    )
    assert with_text


def test_sums_from_a_wide_table_agree_with_the_cells(demo: Demo) -> None:
    premiums = rows_of(demo, "The same from a wide table")

    [(from_cells,)] = demo.fetch(
        "SELECT sum(coalesce(value_number, CAST(regexp_replace(value, '[$,]', '', 'g') AS DOUBLE))) "
        f"FROM {DATASET_NAME}.cells WHERE step_name = 'Extract Policy Details' AND field = 'total_premium'"
    )
    assert float(sum(premium for _, _, premium, _ in premiums)) == pytest.approx(from_cells)
    assert sum(policies for _, policies, *_ in premiums) == demo.report.rows["rows_extract_policy_details"]
    assert all(not_sure == 0 for *_, not_sure in premiums)


def test_dates_become_dates_but_for_the_one_that_is_none(demo: Demo) -> None:
    rows = rows_of(demo, "Dates from text")

    assert [text for _, text, day in rows if day is None] == ["tomorrow"]


def test_what_was_not_sure_is_shown_as_printed(demo: Demo) -> None:
    printed = {value for _, _, value, _ in rows_of(demo, "What was not sure")}

    assert {"2% of Coverage A", "250,000/500,000", "Included"} <= printed
    assert not any(value.startswith("$") for value in printed)


def test_items_of_cells_that_are_arrays_become_rows(demo: Demo) -> None:
    [(items,)] = demo.fetch(
        f"SELECT sum(json_array_length(value)) FROM {DATASET_NAME}.cells WHERE value_type = 'array'"
    )

    assert len(rows_of(demo, "DuckDB:")) == items > 0


def test_fields_of_changing_type_have_variant_columns(demo: Demo) -> None:
    fields = {field for _, field, _ in rows_of(demo, "Fields that have changed")}

    found = rows_of(demo, "The columns that hold them")
    assert {field for _, field, *_ in found} == fields
    for table, _, *columns in found:
        assert {*filter(None, columns)} <= demo.columns(table).keys()


def test_a_pivot_has_a_row_for_each_row_of_the_wide_table(demo: Demo) -> None:
    [(count,)] = demo.fetch(
        f"SELECT count(*) FROM {DATASET_NAME}.rows_extract_statement_of_values "
        f"JOIN {DATASET_NAME}.executions USING (workflow_id, workflow_execution_id) "
        "WHERE metadata__external_id = 'SOV-2025-5174'"
    )

    assert len(rows_of(demo, "One execution as a table again")) == count > 0


@pytest.mark.parametrize("table", ["executions", "steps", "cells", "fields"])
def test_the_columns_of_a_table_are_documented_with_their_types(demo: Demo, table: str) -> None:
    columns = demo.columns(table)
    if table == "executions":  # what is not always there is told in words
        columns = {
            name: data_type
            for name, data_type in columns.items()
            if name == "metadata__external_id" or not name.startswith(("metadata__", "error__"))
        }

    assert documented_columns(table) == columns


def test_the_key_columns_of_the_wide_tables_are_documented(demo: Demo) -> None:
    wide = [table for table in demo.report.rows if table.startswith("rows_")]
    common = set.intersection(*(set(demo.columns(table).items()) for table in wide))

    assert documented_columns("rows_...").items() <= common
    for table in wide:
        others = demo.columns(table).keys() - documented_columns("rows_...").keys()
        fields = {column for column in others if f"{column}__confidence" in others}
        for column in others - fields:
            assert re.search(r"__confidence$|__v_(text|double|bool)$", column), (table, column)


def test_names_become_columns_as_documented() -> None:
    _, table = TABLES.tables("rows_...")

    assert table[0] == ["field", "column"]
    for field, column in table[1:]:
        assert column_name(names(field)[0], NamingConvention()) == names(column)[0]


def documented_columns(heading: str) -> dict[str, str]:
    header, *rows = TABLES.tables(heading)[0]
    assert header == ["column", "type", "meaning"]
    return {name: TYPES[data_type] for column, data_type, _ in rows for name in names(column)}


def test_the_entity_diagram_shows_columns_that_are_there(demo: Demo) -> None:
    [diagram] = [block.code for block in TABLES.blocks("mermaid") if "erDiagram" in block.code]
    entities = re.findall(r"^    (\w+) \{\n(.*?)^    \}", diagram, re.MULTILINE | re.DOTALL)

    assert {name for name, _ in entities} == {"executions", "steps", "cells", "rows_step"}
    for name, body in entities:
        table = "rows_extract_policy_details" if name == "rows_step" else name
        shown = {column: TYPES[data_type] for data_type, column in re.findall(r"(\w+) (\w+)", body)}
        assert shown.items() <= demo.columns(table).items(), name


def test_the_demo_output_is_what_the_command_prints(demo: Demo) -> None:
    settings = PipelineSettings("further_demo", "", "duckdb", DATASET_NAME, "", DATASET_NAME, None)
    printed = summary(demo.report, settings)
    with duckdb.connect(str(demo.path), read_only=True) as connection:
        review = connection.sql(review_query(DATASET_NAME))
        printed += "\n" + text_table(review.columns, review.fetchall())

    [shown] = [block.code for block in README.blocks("text") if "executions listed" in block.code]
    lines = [line for line in shown.splitlines() if line != "..." and not line.startswith("report: ")]
    assert set(lines) - set(printed.splitlines()) == set()
