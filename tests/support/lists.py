"""Two executions that lists name in many ways, and how a list is refused."""

from collections.abc import Callable, Iterable
from typing import ParamSpec

import pytest

from further_source.exceptions import ManifestError
from further_source.executions import ExecutionId

P = ParamSpec("P")

A = ExecutionId("wf", "ex-1")
B = ExecutionId("wf", "ex_2")
RULE = "is not an id (letters, digits, - and _, 1 to 128 characters)"


def error_of(read: Callable[P, Iterable[ExecutionId]], *args: P.args, **kwargs: P.kwargs) -> str:
    with pytest.raises(ManifestError) as caught:
        list(read(*args, **kwargs))
    message = str(caught.value)
    assert message.isprintable(), "one line without control characters"
    return message
