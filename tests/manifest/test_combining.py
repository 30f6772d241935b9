"""Several lists as one, and one list in parts."""

from collections import Counter

import pytest

from further_source.executions import ExecutionId
from further_source.manifest import merge_executions, read_executions, shard


def test_lists_add_up_and_duplicates_count_once_where_they_first_came() -> None:
    first = read_executions(["wf/2", "wf/1", "wf/2"])
    second = read_executions(["other/1", "wf/1", "wf/3"])
    assert merge_executions(first, second) == [
        ExecutionId("wf", "2"),
        ExecutionId("wf", "1"),
        ExecutionId("other", "1"),
        ExecutionId("wf", "3"),
    ]
    assert merge_executions() == []


def listed(count: int) -> list[ExecutionId]:
    return [ExecutionId(f"wf-{number % 7}", f"ex-{number}") for number in range(count)]


@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_the_parts_are_disjoint_and_complete_and_keep_the_order(count: int) -> None:
    executions = listed(500)

    parts = [list(shard(executions, index, count)) for index in range(1, count + 1)]

    assert Counter(execution for part in parts for execution in part) == Counter(executions)
    assert all(part == sorted(part, key=executions.index) for part in parts)


def test_the_parts_are_of_about_the_same_size() -> None:
    executions = listed(8_000)

    sizes = [len(list(shard(executions, index, 8))) for index in range(1, 9)]

    assert all(900 < size < 1_100 for size in sizes), sizes  # 1,000 but for a bit more than three deviations


def test_an_execution_stays_in_its_part_for_ever() -> None:
    executions = listed(12)

    parts = {execution: index for index in range(1, 9) for execution in shard(executions, index, 8)}

    # Of every release: another hash would have two machines load the same executions while they are updated.
    assert [parts[execution] for execution in executions] == [3, 7, 5, 3, 3, 2, 4, 6, 2, 8, 6, 1]


@pytest.mark.parametrize(("index", "count"), [(0, 8), (9, 8), (1, 0), (-1, 8)])
def test_there_is_no_such_part(index: int, count: int) -> None:
    with pytest.raises(ValueError, match=f"shard {index}/{count}"):
        shard([], index, count)
