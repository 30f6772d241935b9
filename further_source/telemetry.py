"""dlt's anonymous telemetry: off, unless somebody configured it."""

import dlt
from dlt.common.configuration.container import Container
from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext
from dlt.common.runtime.anon_tracker import disable_anon_tracker

__all__ = ["stop_telemetry_unless_configured"]

_KEY = "runtime.dlthub_telemetry"


def stop_telemetry_unless_configured() -> None:
    """Sends nothing more to dlt's makers, from this process on: insurers' machines do not call home.

    Sentry and the like, which are off unless configured, are left alone.
    """
    if dlt.config.get(_KEY) is None:
        dlt.config[_KEY] = False
    if not dlt.config.get(_KEY, bool):
        # dlt began as it was imported, before anything could be configured here, and keeps what it found then.
        Container()[PluggableRunContext].context.runtime_config.dlthub_telemetry = False
        disable_anon_tracker()
