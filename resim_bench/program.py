"""What starts first: from here on Ctrl-C is quiet and ends with 130, whatever is being imported, built or run."""

import signal
import sys

from resim_bench.errors import INTERRUPTED

_interrupted = False


def _interrupt(signum, frame):
    """Ctrl-C: remember it, since a library may turn it into something else; a second one ends the process at once."""
    global _interrupted
    _interrupted = True
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    raise KeyboardInterrupt


def main() -> int:
    """The command line, as a program; returns its exit code."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as after nohup
        signal.signal(signal.SIGINT, _interrupt)
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.reconfigure(errors="replace")  # a terminal that is not UTF-8
    try:
        from resim_bench import cli

        code = cli.main()
    except BaseException as error:
        if not _interrupted:
            raise
        if not isinstance(error, SystemExit):
            print(INTERRUPTED, file=sys.stderr)
        code = 130
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing is left to interrupt
    return code


if __name__ == "__main__":
    sys.exit(main())
