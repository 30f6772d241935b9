"""The executions that the command is to load: arguments, lists and what is configured, together."""

import argparse
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import dlt
from dlt.extract import DltResource

from further_source import manifest
from further_source.configuration import configured_list
from further_source.destination.listing import read_executions_of_destination
from further_source.exceptions import ConfigurationError
from further_source.executions import ExecutionId
from further_source.pipeline import Shard
from further_source.settings import SOURCE_NAME

__all__ = ["Listed", "listed_executions"]


class Listed(NamedTuple):
    """What is listed, with `--shard` the part of it.

    Attributes:
        executions: Each once, in order.
        queries: SQL that the destination is still to answer, with more executions.
        shard: The part, to be taken of the answers too.
    """

    executions: list[ExecutionId]
    queries: Sequence[str]
    shard: Shard | None

    def complete(self, pipeline: dlt.Pipeline) -> list[ExecutionId]:
        """All executions, each once.

        Raises:
            ManifestError: As of `read_executions_of_destination`.
        """
        answers = (read_executions_of_destination(pipeline, query) for query in self.queries)
        return manifest.merge_executions(self.executions, *(_part(answer, self.shard) for answer in answers))

    def given(self) -> "list[ExecutionId] | DltResource":
        """What a source is to be given: where there are queries, a resource that a run reads once it has begun."""
        if not self.queries:
            return self.executions

        def listed() -> Iterator[list[ExecutionId]]:
            yield self.complete(dlt.current.pipeline())

        return dlt.resource(listed, name="listed")


def listed_executions(options: argparse.Namespace) -> Listed:
    """All that is listed.

    Raises:
        ConfigurationError: There is no list at all, and no inbox. An empty one is fine.
        ManifestError: A list cannot be read, or holds what cannot be an execution.
    """
    section = f"sources.{SOURCE_NAME}"
    configured = configured_list("executions", dlt.config.get(f"{section}.executions"))
    configured_file: Any = dlt.config.get(f"{section}.executions_file")
    configured_query: Any = dlt.config.get(f"{section}.executions_query")
    database: Any = dlt.secrets.get(f"{section}.executions_database")
    queries = list(dict.fromkeys(filter(None, (options.executions_query, configured_query))))
    given = options.ids or options.executions or configured or configured_file or queries
    if not (given or options.inbox or dlt.config.get(f"{section}.inbox")):
        raise ConfigurationError(
            "no list of executions: give WORKFLOW_ID/EXECUTION_ID arguments, --executions FILE, --executions-query SQL "
            "or --inbox DIR, or configure executions, executions_file, executions_query or inbox in "
            f"[{section}]"
        )
    listed = manifest.merge_executions(
        manifest.read_executions(options.ids, origin="arguments"),
        manifest.read_executions_file(options.executions) if options.executions else (),
        manifest.read_executions(configured),
        manifest.read_executions_file(configured_file) if configured_file else (),
        *(manifest.read_executions_query(query, database) for query in queries if database),
    )
    return Listed(_part(listed, options.shard), [] if database else queries, options.shard)


def _part(executions: Any, shard: Shard | None) -> list[ExecutionId]:
    return list(manifest.shard(executions, *shard) if shard else executions)
