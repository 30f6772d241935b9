"""What the package takes from dlt under private names is still there, and takes what it is given."""

import ast
import inspect
from pathlib import Path
from typing import Annotated, Any, Literal

import dlt
import pytest
from dlt.common.configuration.specs import base_configuration
from dlt.common.configuration.specs.base_configuration import is_secret_hint
from dlt.common.normalizers.naming import snake_case, sql_cs_v1
from dlt.common.typing import TSecretStrValue
from dlt.destinations.impl.sqlalchemy.db_api_client import SqlalchemyClient
from dlt.destinations.impl.sqlalchemy.sqlalchemy_job_client import SqlalchemyJobClient
from dlt.destinations.job_client_impl import SqlJobClientBase
from dlt.destinations.sql_client import SqlClientBase

from further_source import dlt_internals

OWNERS: dict[str, type] = {
    "_get_normalize_storage": dlt.Pipeline,
    "_get_load_storage": dlt.Pipeline,
    "_get_information_schema_components": SqlClientBase,
    "_qualify_info_schema_table_name": SqlClientBase,
    "_get_info_schema_columns_query": SqlJobClientBase,
    "_from_db_type": SqlJobClientBase,
    "_build_schema_update_sql": SqlJobClientBase,
    "_to_table_object": SqlalchemyJobClient,
    "_ensure_transaction": SqlalchemyClient,
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


def test_what_dlt_finds_inside_of_hints_stays_what_it_found() -> None:
    dlt_internals.keep_inner_hints()
    once = base_configuration.extract_inner_hint
    dlt_internals.keep_inner_hints()
    assert base_configuration.extract_inner_hint is once
    hints: list[Any] = [int, str | None, list[str], TSecretStrValue, Annotated[int, []], Literal["a"]]
    for hint in hints * 2:
        assert once(hint) == once.__wrapped__(hint)  # type: ignore[attr-defined]
        assert is_secret_hint(hint) is (hint is TSecretStrValue)


@pytest.mark.parametrize("name", ["duckdb", "postgres", "filesystem"])
def test_kept_capabilities_are_those_that_dlt_finds(tmp_path: Path, name: str) -> None:
    pipeline = dlt.pipeline("kept", pipelines_dir=str(tmp_path), destination=name)
    destination: Any = pipeline.destination

    def found() -> list[Any]:
        return [
            {key: value for key, value in destination.capabilities(naming=naming).items() if not callable(value)}
            for naming in (None, snake_case.NamingConvention(), sql_cs_v1.NamingConvention())
        ]

    unkept = found()
    with dlt_internals.kept_capabilities(pipeline):
        for _ in range(2):
            assert found() == unkept
            changed = destination.capabilities()  # whoever gets them may change them
            changed.max_identifier_length = 7
            changed.supported_loader_file_formats.clear()
        with dlt_internals.kept_capabilities(pipeline):
            assert found() == unkept
    assert "capabilities" not in vars(destination)
