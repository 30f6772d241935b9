"""dlt's destinations, with what they lack for these tables."""

from typing import Any

from further_source.destination.dialects import adapt_dialects
from further_source.destination.lake import replace_in_lakes
from further_source.destination.postgres import adapt_postgres

__all__ = ["adapt"]


def adapt(destination: Any) -> None:
    """Before anything is loaded into it: makes the destination load everything as it is."""
    adapt_postgres(destination)
    adapt_dialects(destination)
    replace_in_lakes(destination)
