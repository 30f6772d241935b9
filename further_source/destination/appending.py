"""Loads that append: where the destination holds nothing of a load's executions, there is nothing to replace.

dlt merges by way of a staging table: it writes each row twice, and looks in the whole table for what the rows replace.
A package says in its state which of its tables are appended to instead.

Only the load that made a package appends, for it holds the lease and has seen that nothing is there. Whoever finds a
package pending merges it, whatever may have happened since: that removes what had been appended of it, too.
"""

from collections.abc import Collection
from contextlib import suppress
from typing import Any

import dlt
from dlt.common.destination.exceptions import DestinationUndefinedEntity
from dlt.common.storages.load_package import PackageStorage, commit_load_package_state

from further_source.destination.ledger import ended_query, ids_condition
from further_source.dlt_internals import append_what_packages_name
from further_source.executions import ExecutionId
from further_source.tables.columns import MERGE_KEY

__all__ = ["append_this_load", "merge_package", "read_leftovers"]

_APPENDED = "further_source_appended"

append_what_packages_name(_APPENDED)


def append_this_load(tables: Collection[str]) -> None:
    """Has dlt append what the package that is being extracted has for these tables, in place of merging it."""
    state: Any = dlt.current.load_package_state()["state"]
    state[_APPENDED] = sorted(tables)
    commit_load_package_state()


def merge_package(packages: PackageStorage, load_id: str) -> None:
    """Has dlt merge all of a package after all. All its files have to be loaded then, also what is loaded already."""
    state: Any = packages.get_load_package_state(load_id)
    if state.pop(_APPENDED, None) is not None:
        packages.save_load_package_state(load_id, state)


def read_leftovers(
    pipeline: dlt.Pipeline, tables: Collection[str], executions: Collection[ExecutionId] | None
) -> frozenset[ExecutionId] | None:
    """Executions that have rows in some of the tables, and of which the destination holds no ending.

    Their load was never finished, ran without the table `executions`, or somebody deleted their rows there.

    Args:
        pipeline: Its destination knows SQL.
        tables: Such as exist.
        executions: Those to look for, of which it holds no ending; None for all that there are.

    Returns:
        None where it cannot be told, because `executions` is not there.
    """
    if executions is not None and not executions:
        return frozenset()
    found: set[ExecutionId] = set()
    with suppress(DestinationUndefinedEntity), pipeline.destination_client() as client:
        sql: Any = client.sql_client  # type: ignore[attr-defined]
        for table in tables:
            query = _all_query(sql, table) if executions is None else _query(sql, table, executions)
            found.update(ExecutionId(*row) for row in sql.execute_sql(query) or ())
        return frozenset(found if executions is None else found.intersection(executions))
    return None


def _query(sql: Any, table: str, executions: Collection[ExecutionId]) -> str:
    keys = ", ".join(map(sql.escape_column_name, MERGE_KEY))
    condition = ids_condition(sql, executions)
    return f"SELECT DISTINCT {keys} FROM {sql.make_qualified_table_name(table)} WHERE {condition}"  # noqa: S608


def _all_query(sql: Any, table: str) -> str:
    names = [sql.escape_column_name(name) for name in MERGE_KEY]
    there = f"SELECT DISTINCT {', '.join(names)} FROM {sql.make_qualified_table_name(table)}"  # noqa: S608
    same = " AND ".join(f"e.{name} = t.{name}" for name in names)
    return (
        f"SELECT {', '.join(f't.{name}' for name in names)} FROM ({there}) t "  # noqa: S608
        f"LEFT JOIN ({ended_query(sql)}) e ON {same} WHERE e.{names[0]} IS NULL"
    )
