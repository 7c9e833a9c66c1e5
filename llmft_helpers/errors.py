"""The one exception that a user's mistake raises: its text is the whole message."""


class UserError(Exception):
    """Names the file, key or row that is wrong and what to do; the command line prints it and exits with 2."""
