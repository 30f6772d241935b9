"""What a large answer takes, in a process of its own."""

import pytest

from benchmarks.measure import measure

ROWS, FIELDS = 170_000, 20  # 199 MB
MOST = 600  # MB


@pytest.mark.slow
@pytest.mark.parametrize("case", ["huge:loaded", "huge:delivered"])
def test_an_answer_of_199_mb_is_loaded_within_600_mb(case: str) -> None:
    run = measure(case, rows=ROWS, fields=FIELDS)

    assert run["cells"] == ROWS * FIELDS
    assert run["peak_mb"] <= MOST
