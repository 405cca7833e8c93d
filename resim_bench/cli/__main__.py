"""`python -m resim_bench.cli`."""

import sys

from resim_bench import cli

sys.exit(cli.main())
