"""What stops a run. A failed execution is data, and raises nothing.

FurtherError
├── ConfigurationError    wrong usage or configuration, found before anything is asked
│   └── ManifestError     the list of executions cannot be read, or holds something that is no execution
├── CredentialsError      the API refuses the token, or the client id and secret
├── AlreadyRunningError   another load of the same pipeline, or into the same dataset, is running
└── LoadError             the destination failed; only the command raises it, in place of dlt's PipelineStepFailed
"""


class FurtherError(Exception):
    """The base of all errors of this package. The text of one is a single line for the user, without secrets."""


class ConfigurationError(FurtherError):
    """An argument or a configuration key has a value that cannot work; the message names it."""


class ManifestError(ConfigurationError):
    """The list of executions cannot be read, or holds a bad id; the message names the file and the line."""


class CredentialsError(FurtherError):
    """The API refused to give a token, or refused the token and, if that could be renewed, the new one too."""


class AlreadyRunningError(FurtherError):
    """Another process loads the same pipeline from the same pipelines directory, or loads into the same dataset."""


class LoadError(FurtherError):
    """The destination failed. What had arrived waits in the pipeline's pending package."""
