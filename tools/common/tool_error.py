"""How tools end when something is wrong: one line that names the file, the thing and the remedy."""

import os
import sys


class ToolError(Exception):
    """The message is that line."""


class FatalError(ToolError):
    """Ends the process at once, for what it has open can no longer be closed."""


def run_tool(name, main):
    """Runs main() and returns the exit status: what it returns, or 1 with a line on standard error."""
    try:
        return main() or 0
    except (ToolError, OSError) as error:
        print(f"{name}: error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        if isinstance(error, FatalError):
            sys.stdout.flush()
            os._exit(1)
        return 1
    except KeyboardInterrupt:
        print(f"{name}: error: interrupted; run it again", file=sys.stderr)
        return 130
