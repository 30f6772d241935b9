"""What the package takes from dlt under private names is still there, and takes what it is given."""

import ast
import inspect
from pathlib import Path

import dlt
import pytest
from dlt.destinations.job_client_impl import SqlJobClientBase
from dlt.destinations.sql_client import SqlClientBase

from further_source import dlt_internals

OWNERS: dict[str, type] = {
    "_get_normalize_storage": dlt.Pipeline,
    "_get_load_storage": dlt.Pipeline,
    "_get_information_schema_components": SqlClientBase,
    "_get_info_schema_columns_query": SqlJobClientBase,
    "_from_db_type": SqlJobClientBase,
    "_build_schema_update_sql": SqlJobClientBase,
}


def private_calls() -> list[tuple[str, str, int]]:
    """Function of ours, private name, and how many arguments it is called with."""
    tree = ast.parse(Path(dlt_internals.__file__).read_text(encoding="utf-8"))
    return [
        (function.name, call.func.attr, len(call.args))
        for function in tree.body
        if isinstance(function, ast.FunctionDef)
        for call in ast.walk(function)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr.startswith("_")
    ]


def test_the_owner_of_each_private_name_is_known() -> None:
    assert {name for _, name, _ in private_calls()} == OWNERS.keys()


@pytest.mark.parametrize(("function", "name", "arguments"), private_calls())
def test_dlt_still_has_what_is_private_to_it(function: str, name: str, arguments: int) -> None:
    owner = OWNERS[name]
    method = getattr(owner, name, None)
    if method is None:
        pytest.fail(f"dlt {dlt.__version__} no longer has {owner.__name__}.{name}, which {function} needs")
    try:
        inspect.signature(method).bind(None, *range(arguments))
    except TypeError as error:
        pytest.fail(f"dlt {dlt.__version__} calls {owner.__name__}.{name} in another way than {function}: {error}")
