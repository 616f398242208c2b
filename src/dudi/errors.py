"""The errors a user can cause, one class per exit code.

Every message is one or two lines that say what is wrong, where (file, line, key) and what to do. The command line
prints it without a traceback and leaves with `exit_code`; from Python the same classes are raised.
"""

INTERRUPTED = 130
"""The exit code after SIGINT or SIGTERM."""


class DudiError(Exception):
    """Base of every error that a user can cause or repair."""

    exit_code = 1


class EnvironmentFault(DudiError):
    """Disk, memory, network, a missing package or a dead peer: nothing is wrong with the recipe."""

    exit_code = 1


class ConfigError(DudiError):
    """Wrong usage or a wrong config, a refused resume included."""

    exit_code = 2


class DataError(DudiError):
    """Bad rows beyond the allowed share, an empty dataset, a hostile file."""

    exit_code = 3


class NumericError(DudiError):
    """A loss, gradient or logit became NaN or infinite."""

    exit_code = 4


class Interrupted(KeyboardInterrupt):
    """A signal ended the run at a step boundary; the message says what was saved."""
