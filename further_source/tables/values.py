"""The columns that values from outside go to.

Values are routed by their types here, because dlt would make the text `"02139"` the number 2139 in a column of numbers:
a column has the type of its first value, and a value of another type goes to a column named like dlt's variants.
"""

from decimal import Decimal
from typing import Any

from further_source import jsontext
from further_source.jsontext import number_of

__all__ = ["Types", "routed"]

Types = dict[str, str]
"""dlt data types by column name."""


def routed(value: Any) -> tuple[str | None, Any]:
    """The dlt data type of a JSON value in a wide table, and the value as that type; None twice for no value."""
    if value is None:
        return None, None
    if isinstance(value, str):
        return "text", value
    if isinstance(value, bool):
        return "bool", value
    if isinstance(value, int | float | Decimal):
        number = number_of(value)
        return (None, None) if number is None else ("double", number)
    return "text", jsontext.dumps(value)
