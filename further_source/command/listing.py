"""The executions that the command is to load: arguments, lists and what is configured, together."""

import argparse
from typing import Any

import dlt

from further_source import manifest
from further_source.configuration import configured_list
from further_source.exceptions import ConfigurationError
from further_source.executions import ExecutionId
from further_source.settings import SOURCE_NAME

__all__ = ["listed_executions"]


def listed_executions(options: argparse.Namespace) -> list[ExecutionId]:
    """All that is listed, each once, in order; with `--shard` the part of it.

    Raises:
        ConfigurationError: There is no list at all, and no inbox. An empty one is fine.
        ManifestError: A list cannot be read, or holds what cannot be an execution.
    """
    section = f"sources.{SOURCE_NAME}"
    configured = configured_list("executions", dlt.config.get(f"{section}.executions"))
    configured_file: Any = dlt.config.get(f"{section}.executions_file")
    given = options.ids or options.executions or configured or configured_file
    if not (given or options.inbox or dlt.config.get(f"{section}.inbox")):
        raise ConfigurationError(
            "no list of executions: give WORKFLOW_ID/EXECUTION_ID arguments, --executions FILE or --inbox DIR, or "
            f"configure executions, executions_file or inbox in [{section}]"
        )
    listed = manifest.merge_executions(
        manifest.read_executions(options.ids, origin="arguments"),
        manifest.read_executions_file(options.executions) if options.executions else (),
        manifest.read_executions(configured),
        manifest.read_executions_file(configured_file) if configured_file else (),
    )
    return list(manifest.shard(listed, *options.shard)) if options.shard else listed
