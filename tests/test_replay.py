"""A seed of the mini study, replayed: the recipe, the scenes and the arithmetic still give the recorded losses."""

import json

import pytest

from tests import replay


@pytest.mark.slow
def test_the_first_losses_of_a_seed_are_the_recorded_ones(tmp_path):
    """In float32 in the first step, where nothing has grown (SSE alone: 4e-7); in float64 in fifty, on any processor.

    The first step tells views apart that are blurred in another way; fifty see whatever a step does otherwise.
    """
    recorded = json.loads(replay.FILE.read_text())
    for kind, within in (("float32", 1e-5), ("float64", 1e-6)):
        found = replay.losses(tmp_path, kind)
        assert found.keys() == recorded[kind].keys() == {"loss", "loss_instance", "loss_c4"}
        for name, values in found.items():
            assert values == pytest.approx(recorded[kind][name], rel=within), (kind, name)
