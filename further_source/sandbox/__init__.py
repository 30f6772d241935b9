"""A local stand-in of the Further AI API, on loopback: for the demo, for tests, for development offline.

`Sandbox` runs inside a Python process; `python -m further_source.sandbox` runs it by itself.
"""

from further_source.sandbox.data import DemoExecution, create_execution, demo_executions
from further_source.sandbox.scripts import (
    AnyReply,
    Fault,
    Reply,
    cell,
    completed,
    error,
    failed,
    running,
    step,
)
from further_source.sandbox.server import RequestRecord, Sandbox

__all__ = [
    "AnyReply",
    "DemoExecution",
    "Fault",
    "Reply",
    "RequestRecord",
    "Sandbox",
    "cell",
    "completed",
    "create_execution",
    "demo_executions",
    "error",
    "failed",
    "running",
    "step",
]
