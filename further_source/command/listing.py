"""The executions that the command is to load: arguments, lists and what is configured, together."""

import argparse
from typing import Any

import dlt

from further_source import manifest
from further_source.configuration import parse_list
from further_source.exceptions import ConfigurationError
from further_source.executions import ExecutionId
from further_source.settings import SOURCE_NAME

__all__ = ["listed_executions"]


def listed_executions(options: argparse.Namespace) -> list[ExecutionId]:
    """All that is listed, each once, in order; with `--shard` the part of it.

    Raises:
        ConfigurationError: There is no list at all. An empty one is fine.
        ManifestError: A list cannot be read, or holds what cannot be an execution.
    """
    section = f"sources.{SOURCE_NAME}"
    configured = parse_list("executions", dlt.config.get(f"{section}.executions")) or ()
    configured_file: Any = dlt.config.get(f"{section}.executions_file")
    if not (options.ids or options.executions or configured or configured_file):
        raise ConfigurationError(
            "no list of executions: give WORKFLOW_ID/EXECUTION_ID arguments or --executions FILE, or configure "
            f"executions or executions_file in [{section}]"
        )
    listed = manifest.merge_executions(
        manifest.read_executions(options.ids, origin="arguments"),
        manifest.read_executions_file(options.executions) if options.executions else (),
        manifest.read_executions(configured),
        manifest.read_executions_file(configured_file) if configured_file else (),
    )
    return list(manifest.shard(listed, *options.shard)) if options.shard else listed
