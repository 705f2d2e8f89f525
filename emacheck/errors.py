"""Every exception that emacheck raises on purpose.

Disagreement between two runs is a result and never an exception. An exception means *trouble*: no verdict could be
reached, the command ends with exit code 2, and the message says where, what was found, what was expected and how to
fix it.

    EmacheckError
    ├── UsageError          options or arguments that are wrong, contradict each other or name what does not exist
    ├── LogError            a log that cannot be read or understood
    ├── DataError           a data set that is missing, incomplete or changed
    ├── BundleError         a reference bundle that is missing, damaged, incompatible or would be overwritten
    ├── OutputError         a place that cannot be written or already holds something
    ├── TrainingError       the training crashed, hung, was killed or refused its configuration
    └── MissingExtraError   an optional package is not installed
"""


class EmacheckError(Exception):
    """Base of all deliberate errors; its text says what was found, what was expected and how to fix it.

    Example:
        >>> import emacheck
        >>> try:
        ...     emacheck.read_log("no/such.log")
        ... except emacheck.EmacheckError as error:
        ...     print(error)
        no/such.log: there is no such file or directory, expected a log or a run directory. Check the path.
    """


class UsageError(EmacheckError):
    """Options or arguments are wrong, contradict each other or name something that does not exist."""


class LogError(EmacheckError):
    """A log cannot be read or understood."""


class DataError(EmacheckError):
    """A data set is missing, incomplete or changed."""


class BundleError(EmacheckError):
    """A reference bundle is missing, damaged, incompatible or would be overwritten."""


class OutputError(EmacheckError):
    """A place cannot be written or already holds something."""


class TrainingError(EmacheckError):
    """The training crashed, hung, was killed or refused its configuration."""


class MissingExtraError(EmacheckError):
    """An optional package is not installed."""
