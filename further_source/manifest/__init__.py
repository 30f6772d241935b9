"""The list of executions, read from Python values, from files, from standard input and from databases.

An item is read when it is asked for; the first one that cannot be an execution raises `ManifestError`.
"""

from further_source.manifest.combining import merge_executions, shard
from further_source.manifest.formats import read_executions_file
from further_source.manifest.rows import read_executions_query, read_executions_rows
from further_source.manifest.values import items_of, read_executions

__all__ = [
    "items_of",
    "merge_executions",
    "read_executions",
    "read_executions_file",
    "read_executions_query",
    "read_executions_rows",
    "shard",
]
