"""What databases that dlt reaches through SQLAlchemy need, put in by way of dlt's registry of dialects.

- Names of columns are always in quotes. SQLAlchemy quotes what it takes for a reserved word, and its lists lack some: a
  field `nothing` stops SQLite. On databases that fold names which are not in quotes, dlt's names stay without.
- MySQL and MariaDB keep texts as `LONGTEXT`, for dlt's `TEXT` ends at 64 kB, and as `utf8mb4_bin`, for the character
  set of a dataset may lack emoji, and its collation may take `ex1` and `EX1` for the same execution.
"""

from typing import Any

from dlt.destinations import sqlalchemy

__all__ = ["adapt_dialects"]


def adapt_dialects(destination: Any) -> None:
    """If dlt reaches the destination through SQLAlchemy, registers what its databases need; else does nothing.

    Classes that somebody has registered are extended, not replaced.
    """
    if not isinstance(destination, sqlalchemy):
        return
    from dlt.destinations.impl.sqlalchemy.dialect import (  # noqa: PLC0415  a driver
        DIALECT_CAPS_REGISTRY,
        DialectCapabilities,
        register_dialect_capabilities,
    )

    for name in (*DIALECT_CAPS_REGISTRY, "postgresql"):
        registered = DIALECT_CAPS_REGISTRY.get(name, DialectCapabilities)
        if not hasattr(registered, "is_adapted"):
            register_dialect_capabilities(name, _adapted(registered))


def _adapted(registered: Any) -> Any:
    from sqlalchemy import quoted_name  # noqa: PLC0415  a driver

    class Adapted(registered):  # type: ignore[misc]
        is_adapted = True
        folds_names = False

        def adjust_capabilities(self, caps: Any, dialect: Any) -> None:
            super().adjust_capabilities(caps, dialect)
            self.folds_names = dialect.requires_name_normalize

        def adapt_table(self, table: Any, table_schema: Any) -> Any:
            table = super().adapt_table(table, table_schema)
            if not self.folds_names:
                for column in table.columns:
                    column.name = quoted_name(column.name, quote=True)
            return table

        def type_mapper_class(self) -> Any:
            mapper = super().type_mapper_class()
            return _with_long_texts(mapper) if self.sqlglot_dialect == "mysql" else mapper

    return Adapted


def _with_long_texts(mapper: Any) -> Any:
    from sqlalchemy import Boolean, Text  # noqa: PLC0415  a driver
    from sqlalchemy.dialects.mysql import LONGTEXT, TINYINT  # noqa: PLC0415

    class Mapper(mapper):  # type: ignore[misc]
        def db_type_from_text_type(self, column: Any, table: Any) -> Any:
            db_type = super().db_type_from_text_type(column, table)
            return LONGTEXT(collation="utf8mb4_bin") if isinstance(db_type, Text) else db_type

        def from_destination_type(self, db_type: Any, precision: Any = None, scale: Any = None) -> Any:
            if isinstance(db_type, TINYINT) and db_type.display_width == 1:
                db_type = Boolean()  # MySQL has no other
            return super().from_destination_type(db_type, precision, scale)

    return Mapper
