"""From a curve of precision over recall to AP: what VOC's metric and the costs of errors share."""

import numpy as np


def interpolated(hit: np.ndarray, objects: int, recalls: np.ndarray) -> float:
    """Mean over `recalls` of the best precision from each on: AP of one class, as a fraction.

    Args:
        hit: whether each detection is a true positive (n,), by falling score.
        objects: how many are to be found, at least one.
    """
    found = np.flatnonzero(hit)
    precision = np.arange(1, len(found) + 1) / (found + 1)
    # The best precision from each true positive on; a last one for a recall that is never reached.
    best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0)
    needed = np.searchsorted(np.arange(objects + 1) / objects, recalls)
    return best[np.clip(needed - 1, 0, len(found))].mean()
