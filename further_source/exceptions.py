"""What stops a run. A failed execution is data, and raises nothing.

FurtherError
├── ConfigurationError    wrong usage or configuration, found before anything is asked
│   └── ManifestError     the list of executions cannot be read, or names an id that cannot be one
├── CredentialsError      the API refuses the token, or the client id and secret
├── AlreadyRunningError   the command's: another load of the same pipeline is running
└── LoadError             the command's: the destination did not take what arrived (else dlt's PipelineStepFailed)
"""


class FurtherError(Exception):
    """Base of all errors of this package. `str()` of one is a single line for the user, free of secrets."""


class ConfigurationError(FurtherError):
    """An argument or a configuration key has a value that cannot work; the message names it."""


class ManifestError(ConfigurationError):
    """The list of executions is unreadable or holds a bad id; the message names the file and the line."""


class CredentialsError(FurtherError):
    """The API refused a token that it had just renewed, or one that cannot be renewed, or refused to give a token."""


class AlreadyRunningError(FurtherError):
    """Another process loads the same pipeline from the same pipelines directory."""


class LoadError(FurtherError):
    """The destination failed. What had arrived waits in the pipeline's pending package."""
