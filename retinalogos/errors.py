"""The two ways in which work can be refused, and the exit code of each."""


class UsageError(ValueError):
    """The caller asked for something that does not exist or cannot be: exit code 2, one line.

    The message names the file, the row or the parameter, and what to do.
    """


class DataError(RuntimeError):
    """The data is not fit for the work asked of it: exit code 1.

    The message names the file and the row, and what to do.
    """
