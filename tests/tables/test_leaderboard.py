"""Everything that was run: ranks, spreads, what deviates, and experiments that no row names."""

import tables


def lines(records):
    frame = tables.leaderboard(records)
    return [(line.transfer, line.rank, line.pretrain, round(line.mean, 6), line.trials) for line in frame.itertuples()]


def test_experiments_are_ranked_within_their_protocol(make_record):
    records = [
        make_record("mine", "voc-full", ap=56.0, seeds=(0, 0)),
        make_record("mine", "voc-full", ap=58.0, seeds=(1, 1)),
        make_record("in100-resim-c4", "voc-full", ap=55.9),
        make_record("in100-resim-c4", "voc-frozen", ap=50.0),
        make_record("other", "my-protocol", ap=1.0),
    ]
    assert lines(records) == [
        ("voc-full", 1, "mine", 57.0, 2),
        ("voc-full", 2, "in100-resim-c4", 55.9, 1),
        ("voc-frozen", 1, "in100-resim-c4", 50.0, 1),
        ("my-protocol", 1, "other", 1.0, 1),
    ], "in the tables' order, then what no table knows"
    frame = tables.leaderboard(records)
    assert round(frame["std"][0], 6) == round(2**0.5, 6) and frame.pretrainings[0] == 2


def test_of_two_records_of_a_trial_the_first_counts(make_record):
    assert lines([make_record("a", "voc-full", ap=1.0), make_record("a", "voc-full", ap=2.0)])[0][3] == 1.0


def test_what_deviates_has_no_rank_and_stands_alone(make_record):
    short = make_record("a", "voc-full", ap=90.0, seeds=(2, 2))
    short["transfer"]["deviations"] = {"max_iters": [24000, 10], "a": [1, 2], "b": [1, 2], "c": [1, 2]}
    records = [make_record("a", "voc-full", ap=50.0), short]
    assert [line[1:4] for line in lines(records)] == [(0, "a", 90.0), (1, "a", 50.0)]
    text = tables.everything(tables.leaderboard(records))
    assert "–  a          90.0" in text and "transfer.max_iters 24000 → 10; " in text and "and 1 more" in text
    assert "2 experiments by protocol and data, best first" in text


def test_other_data_are_another_block(make_record):
    other = make_record("b", "voc-full", ap=60.0)
    other["transfer"]["data"] = {"digest": "x", "train_images": 5, "test_images": 5}
    assert [line[1] for line in lines([make_record("a", "voc-full", ap=50.0), other])] == [1, 1]


def test_probes_are_ranked_by_their_accuracy(make_record):
    records = [
        make_record(name, "probe-mini", metrics={"top1": top1, "top5": 99.0}) for name, top1 in (("a", 1), ("b", 2))
    ]
    assert [line[2] for line in lines(records)] == ["b", "a"]
    assert "top1  top5" in tables.everything(tables.leaderboard(records))


def test_without_records_it_says_how_to_begin():
    assert "Nothing has run: `resim-bench mini`" in tables.everything(tables.leaderboard([]))
