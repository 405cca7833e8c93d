"""torchrun, which leaves the last word to the processes that it starts: they have said what is wrong."""

import logging
import signal
import sys

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from resim_bench.errors import INTERRUPTED


def main() -> int:
    """Run torchrun with this program's arguments; returns the exit code of the process that failed first."""
    logging.disable(logging.ERROR)  # it reports each process that it ends
    try:
        run.main(sys.argv[1:])
    except ChildFailedError as failed:
        rank, first = failed.get_first_failure()
        if first.exitcode > 0:
            return first.exitcode
        name = signal.Signals(-first.exitcode).name
        print(
            f"resim-bench: the system ended process {rank} ({name}): see its memory, and start again", file=sys.stderr
        )
        return 128 - first.exitcode
    except (SignalException, KeyboardInterrupt):
        print(INTERRUPTED, file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
