"""Leaves most of a table's cases to the slow tests."""

from collections.abc import Iterable
from typing import Any

import pytest

__all__ = ["few_of"]


def few_of(cases: Iterable[Any], every: int | None = None) -> list[Any]:
    """All cases as parameters; only the first, or one of so many, is among the tests that run by default."""
    return [
        case if (index == 0 if every is None else index % every == 0) else _slow(case)
        for index, case in enumerate(cases)
    ]


def _slow(case: Any) -> Any:
    if type(case) is type(pytest.param()):
        return pytest.param(*case.values, id=case.id, marks=(*case.marks, pytest.mark.slow))
    return pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow)
