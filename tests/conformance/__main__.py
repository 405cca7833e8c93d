"""Prints the certificate; exit code 1 when a line is beyond its tolerance."""

import sys
import time

import torch
from mmengine.logging import MMLogger

import transfer  # noqa: F401 (registers what the configs name)
from resim_bench.harness import runs
from tests.conformance import certificate, detection, pretraining  # noqa: F401 (their lines)


def main() -> int:
    """Measure every quantity."""
    MMLogger.get_instance("certificate", log_level="WARNING")  # MMDetection prints a line per tensor
    torch.set_num_threads(1)  # sums in one order
    started = time.monotonic()
    print(certificate.header())
    differences = {}
    for name, quantity in certificate.QUANTITIES.items():
        differences[name] = quantity.difference()
        print(certificate.line(quantity, differences[name]), flush=True)
    failed = [name for name, quantity in certificate.QUANTITIES.items() if not differences[name] <= quantity.tolerance]
    seconds = time.monotonic() - started
    print(f"\n{len(differences) - len(failed)} of {len(differences)} quantities equal the originals', {seconds:.0f} s")
    print(f"torch {runs.environment()['versions']['torch']}, {runs.device()}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
