"""The one error that the command line shows without a traceback."""


class ClusterError(Exception):
    """Something the user can act on: the message names the fault and what would be right."""
