"""The answers that the benchmarks serve: deterministic, shaped as documented."""

import random
from collections.abc import Iterator
from typing import Any

import orjson

WORKFLOW_ID = "d5929cd9-1d50-49ea-afb4-b5ce43c1296a"
_WORDS = ("Smith", "Jane", "Main Street", "Boston", "2024-01-01", "Frame", "Masonry", "Open", "Closed", "Liability")


def execution_ids(count: int) -> list[str]:
    return [f"e1f2a3b4-c5d6-7890-abcd-{number:012d}" for number in range(count)]


def payload(execution_id: str, rows: int, fields: int, step_name: str = "Extract Policy Details") -> dict[str, Any]:
    """One completed execution of one step; three fields of four are text, one is a number."""
    numbers = random.Random(execution_id)
    names = [f"field_{position}" for position in range(fields)]
    data = [
        {
            name: {
                "value": round(numbers.uniform(0, 1e6), 2) if position % 4 == 3 else _text(numbers),
                "confidence_score": round(numbers.uniform(0.3, 1), 2),
            }
            for position, name in enumerate(names)
        }
        for _ in range(rows)
    ]
    return {
        "workflow_id": WORKFLOW_ID,
        "workflow_execution_id": execution_id,
        "status": "completed",
        "metadata": {"external_id": f"INV-{execution_id[-6:]}"},
        "steps": [{"step_name": step_name, "data": {"schema": {}, "data": data, "metadata": {}}}],
    }


def bodies(count: int, rows: int, fields: int, step_names: int = 1) -> Iterator[tuple[str, bytes]]:
    """Execution ids and their answers as sent, `rows` times `fields` cells each, under `step_names` names in turn."""
    for number, execution_id in enumerate(execution_ids(count)):
        answer = payload(execution_id, rows, fields, f"Extract Policy Details {number % step_names}")
        yield execution_id, orjson.dumps(answer)


def _text(numbers: random.Random) -> str:
    return f"{numbers.choice(_WORDS)} {numbers.randrange(100_000)}"
