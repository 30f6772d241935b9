"""A dlt source that polls Further AI workflow executions to completion and yields what they extracted."""

from further_source.destination.pending import load_pending
from further_source.exceptions import (
    AlreadyRunningError,
    ConfigurationError,
    CredentialsError,
    FurtherError,
    LoadError,
    ManifestError,
)
from further_source.run import run_in_slices
from further_source.session import Report
from further_source.source import further_source

__all__ = [
    "AlreadyRunningError",
    "ConfigurationError",
    "CredentialsError",
    "FurtherError",
    "LoadError",
    "ManifestError",
    "Report",
    "further_source",
    "load_pending",
    "run_in_slices",
]
