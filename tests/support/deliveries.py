"""Deliveries as the API posts them, stored as a gateway would."""

import json
from pathlib import Path
from typing import Any

import dlt

from further_source.sandbox import Sandbox, cell, completed, failed, step
from tests.support.loading import WORKFLOW, query


def inline(execution_id: str, *rows: dict[str, Any], **extra: Any) -> dict[str, Any]:
    """A delivery with its rows in it, each of plain values."""
    cells = [{name: cell(value, 0.9) for name, value in row.items()} for row in rows or ({"name": execution_id},)]
    return completed(WORKFLOW, execution_id, [step("Extract", cells)], **extra)


def by_url(sandbox: Sandbox, delivery: dict[str, Any], *, expires_in: float = 3600) -> dict[str, Any]:
    """The same, with a signed URL in place of the data of each step."""
    steps = [
        {**one, "data": {"url": sandbox.sign(one["data"], expires_in=expires_in)}} for one in delivery.get("steps", [])
    ]
    return {**delivery, "steps": steps} if "steps" in delivery else delivery


def failing(execution_id: str, **extra: Any) -> dict[str, Any]:
    return failed(WORKFLOW, execution_id, **extra)


def store(inbox: Path, name: str, *deliveries: Any) -> Path:
    """Writes deliveries (bytes as they are) into a file, one a line if there are several."""
    file = inbox / name
    file.parent.mkdir(parents=True, exist_ok=True)
    texts = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in deliveries]
    file.write_bytes(b"\n".join(texts))
    return file


def files(inbox: Path) -> list[str]:
    """The names of all files below it."""
    return sorted(str(file.relative_to(inbox)) for file in inbox.rglob("*") if file.is_file())


def outcomes(pipeline: dlt.Pipeline) -> dict[str, str]:
    rows = query(pipeline, "SELECT workflow_execution_id, poll_outcome FROM executions")
    assert len(rows) == len(dict(rows)), "an execution has two rows"
    return dict(rows)
