"""The executions of the demo, without the waiting."""

from typing import Any

import dlt

from further_source import Report, further_source, run_in_slices
from further_source.sandbox import Sandbox, demo_executions


def load_demo(pipeline: dlt.Pipeline, **arguments: Any) -> Report:
    """Loads what `load.py --demo` loads; `arguments` are those of `run_in_slices`."""
    with Sandbox() as sandbox:
        for execution in demo_executions():
            after = None if execution.after is None else 0.0
            sandbox.serve(execution.workflow_id, execution.execution_id, execution.payload, after)
        source = further_source(
            executions=[(execution.workflow_id, execution.execution_id) for execution in demo_executions()],
            base_url=sandbox.base_url,
            client_id=sandbox.client_id,
            client_secret=sandbox.client_secret,
            max_wait=0,
            max_requests_per_second=1000,
            max_workers=1,  # so that they end in the order of the list
        )
        return run_in_slices(pipeline, source, **arguments)
