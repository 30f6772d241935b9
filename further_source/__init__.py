"""A dlt source that polls Further AI workflow executions to completion and yields what they extracted.

A name is imported when it is first asked for: dlt takes a second to import, and the command's help, a message about
wrong usage and the sandbox need none of it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from further_source.destination.pending import load_pending
    from further_source.exceptions import (
        AlreadyRunningError,
        ConfigurationError,
        CredentialsError,
        FurtherError,
        LoadError,
        ManifestError,
    )
    from further_source.forgetting import Forgotten, forget
    from further_source.lock import only_load
    from further_source.manifest import shard
    from further_source.pipeline import further_pipeline, set_defaults
    from further_source.rebuilding import rebuild
    from further_source.run import run_in_slices
    from further_source.run.report import Report
    from further_source.source import further_executions, further_source, further_webhooks

__all__ = [
    "AlreadyRunningError",
    "ConfigurationError",
    "CredentialsError",
    "Forgotten",
    "FurtherError",
    "LoadError",
    "ManifestError",
    "Report",
    "forget",
    "further_executions",
    "further_pipeline",
    "further_source",
    "further_webhooks",
    "load_pending",
    "only_load",
    "rebuild",
    "run_in_slices",
    "set_defaults",
    "shard",
]

_MODULES = {
    **dict.fromkeys(__all__, "exceptions"),
    "Forgotten": "forgetting",
    "Report": "run.report",
    "forget": "forgetting",
    "further_executions": "source",
    "further_pipeline": "pipeline",
    "further_source": "source",
    "further_webhooks": "source",
    "load_pending": "destination.pending",
    "only_load": "lock",
    "rebuild": "rebuilding",
    "run_in_slices": "run",
    "set_defaults": "pipeline",
    "shard": "manifest",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
