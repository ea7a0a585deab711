"""Who runs a command."""

import getpass
import os


def user_name() -> str:
    """Who runs this; a container's user may have a number and no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
