"""Polls the listed Further AI executions to completion and loads what they extracted: `further-source load`.

python pipelines/load.py [WORKFLOW_ID/EXECUTION_ID ...] [--executions FILE|-] [--demo]
"""

import sys

try:
    from further_source.command.main import load_script
except ModuleNotFoundError as error:
    sys.exit(f"load.py: {error.name} is not installed for this Python: run `uv run python pipelines/load.py`")

if __name__ == "__main__":
    load_script()
