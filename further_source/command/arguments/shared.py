"""Options that several subcommands have."""

import argparse

__all__ = ["add_destination", "add_inbox", "add_json", "add_list"]


def add_list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ids", nargs="*", metavar="WORKFLOW_ID/EXECUTION_ID", help="executions to load")
    parser.add_argument(
        "--executions",
        metavar="FILE|-",
        help="a list of them: .csv, .jsonl, .json or lines; path, pipe, fsspec URL or - for stdin",
    )
    parser.add_argument(
        "--executions-query",
        metavar="SQL",
        help="a query that gives their two ids, on executions_database if that is configured, else on the destination",
    )


def add_inbox(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--inbox", metavar="DIR|URL", help="stored webhook deliveries, beside or instead of a list")


def add_destination(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--destination", metavar="NAME", help="dlt destination (default: as configured, else duckdb)")
    parser.add_argument("--dataset", metavar="NAME", help="dataset (default: as configured, else further_data)")


def add_json(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--json", action="store_true", help=f"print {what} as one JSON document")
