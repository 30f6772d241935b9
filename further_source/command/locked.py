"""The pipeline that a subcommand works on, which no load of this machine uses meanwhile."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

import dlt

from further_source.command.failures import as_further_error, hide_tracebacks
from further_source.lock import only_load
from further_source.pipeline import PipelineSettings, pipeline_settings, set_defaults
from further_source.settings import PIPELINE_NAME
from further_source.source import check_configured_keys

__all__ = ["locked_pipeline"]


@contextmanager
def locked_pipeline(options: argparse.Namespace) -> Iterator[tuple[dlt.Pipeline, PipelineSettings]]:
    """The pipeline of `--destination` and `--dataset`, locked; whatever fails within is told as an error of ours.

    Raises:
        AlreadyRunningError: A load of it is running.
        ConfigurationError: Something is configured wrong.
        FurtherError: Nothing is loaded, or what is done within fails.
    """
    set_defaults()
    hide_tracebacks()
    check_configured_keys()
    settings = pipeline_settings(PIPELINE_NAME, destination=options.destination, dataset_name=options.dataset)
    settings.require_file()
    with only_load(settings.pipeline_name, settings.pipelines_dir):
        pipeline = settings.make()
        try:
            yield pipeline, settings
        except Exception as error:
            raise as_further_error(error, pipeline) from error
