"""A study's claims: judged by its plan alone, from all of its seeds or not at all."""

import dataclasses
import math
import re

import numpy as np
import pytest

import tables
from resim_bench import experiments
from resim_bench.record import ERRORS, digest
from tables import studies
from tables.quantities import IOUS, QUANTITIES
from tables.statistics import paired, prediction_interval
from tables.studies import HOLDS, REVERSED, UNDECIDED

PLAN = studies.load_studies()["mini"]
ROWS = tables.load_tables()["mini"].rows
FROZEN = "(frozen backbone)"


def detail(ap):
    """The better a detector, the less its errors of place cost, and the less its AP falls with the IoU."""
    by_iou = {iou: 2 * ap * math.exp(-(int(iou) - 50) / ap) for iou in IOUS}
    costs = dict.fromkeys(ERRORS, 1.0) | {"localisation": 50 - ap}
    return {"box": {"by_iou": by_iou}, "errors": {"box": {"0.5": costs}}}


@pytest.fixture
def trials(make_record):
    """Records of every seed of the plan (or of `seeds`), each row around its AP of `means`; a seed moves all rows."""

    def build(means, seeds=PLAN.seeds, noise=0.3):
        rng = np.random.default_rng(0)
        records = []
        for seed in seeds:
            of_seed = rng.normal()
            for row in ROWS:
                ap = means.get(row.name, 20.0) + of_seed + rng.normal(0, noise)
                one = make_record(row.pretrain, row.transfer, ap, ap + 10, ap - 5, seeds=(seed, seed))
                records.append(one | {"detail": detail(ap)})
        return records

    return build


def verdicts(records):
    judged = studies.judge(PLAN, tables.collect(records))
    return {(one.claim.text.split(" is ")[0], one.metric, one.claim.primary): one.verdict for one in judged}


def test_the_plan_is_what_the_project_asks():
    primary = [claim for claim in PLAN.claims if claim.primary]
    assert len(primary) == 1 and primary[0].metrics == ["AP"]
    assert len(PLAN.seeds) >= 10 and 0 not in PLAN.seeds, "seed 0 is `make mini`'s: a new trial for `make regress`"
    names = {row.name for row in ROWS}
    assert {name for claim in PLAN.claims for name in (*claim.above, *claim.below)} <= names


def test_the_plan_of_mini_coco_is_what_the_project_asks():
    plan = studies.load_studies()["mini-coco"]
    assert plan.seeds == PLAN.seeds, "by the same backbones"
    frozen, full = ("frozen ResNet", "full fine-tuning")
    assert [(claim.above, claim.below, claim.metrics) for claim in plan.claims] == [
        ([f"{above} ({group})"], [f"{below} ({group})"], [metric])
        for above, below, group, metric in (
            ("ReSim-FPN", "MoCo-v2", frozen, "box_AP"),
            ("ReSim-FPN", "MoCo-v2", frozen, "mask_AP"),
            ("ReSim-C4", "MoCo-v2", frozen, "box_AP"),
            ("ReSim-FPN", "MoCo-v2", full, "box_AP"),
            ("ReSim-C4", "MoCo-v2", full, "box_AP"),
            ("ReSim-FPN^T", "ReSim-FPN", full, "box_AP"),
            ("MoCo-v2", "random init.", frozen, "box_AP"),
        )
    ]
    assert [claim.primary for claim in plan.claims] == [True] + 6 * [False]
    rows = {row.name for row in tables.load_tables()["mini-coco"].rows}
    assert {name for claim in plan.claims for name in (*claim.above, *claim.below)} <= rows


def test_a_study_reads_each_backbone_in_the_unit_that_trains_it():
    (first, *_), known = studies.units(PLAN), experiments.readings_ids()
    read = [trial.experiment for trial in first if trial.experiment.transfer_id in known]
    assert read == [(id, "readings-mini") for id in ("mini-random", "mini-moco-v2", "mini-resim-c4")]
    row, *_ = studies.units(studies.load_studies()["mini-controls"])
    assert [(trial.experiment.transfer_id, trial.seed) for trial in row] == [
        ("mini-voc-frozen", 11),
        ("mini-voc-frozen", 12),
        ("readings-mini", 11),
        ("readings-mini", 12),
    ]


@pytest.mark.parametrize(("resim", "verdict"), [(23.0, HOLDS), (20.0, UNDECIDED), (17.0, REVERSED)])
def test_the_verdict_is_the_sign_that_is_clear(trials, resim, verdict):
    found = verdicts(trials({f"ReSim-C4 {FROZEN}": resim, f"random init. {FROZEN}": 13.0}))
    assert found["ReSim-C4", "AP", True] == found["ReSim-C4", "AP75", False] == verdict
    assert {of for (_, metric, _), of in found.items() if metric in QUANTITIES} == {verdict}
    assert found["MoCo-v2", "AP", False] == HOLDS


def test_pairs_are_seeds(trials):
    """What moves all rows of a seed alike cancels: the interval is that of differences within seeds."""
    records = trials({f"ReSim-C4 {FROZEN}": 21.0})
    judged = studies.judge(PLAN, tables.collect(records))[0]
    values = {
        method: [
            r["metrics"]["AP"]
            for r in records
            if (r["pretrain"]["id"], r["transfer"]["id"]) == (method, "mini-voc-frozen")
        ]
        for method in ("mini-resim-c4", "mini-moco-v2")
    }
    differences = [a - b for a, b in zip(values["mini-resim-c4"], values["mini-moco-v2"], strict=True)]
    assert judged.found == pytest.approx(paired(differences))
    assert judged.correlation == pytest.approx(np.corrcoef(*values.values())[0, 1])
    assert judged.correlation > 0.7


def test_a_gap_is_compared_with_a_gap_seed_by_seed(trials):
    full = {"ReSim-C4 (full fine-tuning)": 21.0, "MoCo-v2 (full fine-tuning)": 22.0}
    records = trials({f"ReSim-C4 {FROZEN}": 24.0} | full)
    gap = next(one for one in studies.judge(PLAN, tables.collect(records)) if len(one.claim.above) == 2)
    assert gap.found.mean == pytest.approx((24 - 20) - (21 - 22), abs=0.5)
    assert gap.verdict == HOLDS


def test_secondary_claims_share_their_error(trials, monkeypatch):
    """Holm: a p of 0.03 alone would do, one of several does not."""
    monkeypatch.setattr(studies, "paired", lambda differences: paired(differences)._replace(p=0.03, mean=1.0))
    judged = studies.judge(PLAN, tables.collect(trials({})))
    assert {one.verdict for one in judged if one.claim.primary} == {HOLDS}
    assert {one.verdict for one in judged if not one.claim.primary} == {UNDECIDED}


def test_what_cannot_be_tested_is_undecided(trials):
    """A row without any AP is constant, and of its curve there is no slope: no reason to lose every other table."""
    records = trials({f"ReSim-C4 {FROZEN}": 23.0})
    for record in records:
        if record["pretrain"]["id"] == "mini-random":
            record["metrics"] |= dict.fromkeys(record["metrics"], 0.0)
        if record["pretrain"]["id"] == "mini-moco-v2":
            record["detail"]["box"]["by_iou"] = dict.fromkeys(IOUS, 0.0)
    frame = tables.collect(records)
    found = verdicts(records)
    assert found["MoCo-v2", "AP", False] == found["ReSim-C4", "AP", True] == HOLDS
    text = " ".join(tables.render(frame, ["mini"]).split())
    assert "Slope of log AP over the IoU undecided: – (– … –), p –, n 10, r –." in text
    assert re.search(r"MoCo-v2 is above random.* AP holds: .* n 10, r –;", text)


def test_nothing_is_judged_before_all_seeds_have_run(trials):
    """Else one could stop when it looks good."""
    frame = tables.collect(trials({}, PLAN.seeds[:-1]))
    assert studies.judge(PLAN, frame) == []
    text = " ".join(tables.render(frame, ["mini"]).split())
    assert f"{len(PLAN.seeds) - 1} of the study's {len(PLAN.seeds)} seeds have run: it is judged when all have." in text
    assert "Primary" not in text and "holds:" not in text
    one = tables.render(tables.collect(trials({}, PLAN.seeds[:1])), ["mini"])
    assert f"1 of the study's {len(PLAN.seeds)} seeds has run: it is judged when all have." in one


def test_other_seeds_do_not_count(trials):
    planned = trials({f"ReSim-C4 {FROZEN}": 22.0})
    more = trials({f"ReSim-C4 {FROZEN}": 90.0}, seeds=[0, 500])
    assert studies.judge(PLAN, tables.collect([*planned, *more])) == studies.judge(PLAN, tables.collect(planned))


def test_another_transfer_of_a_backbone_of_the_plan_does_not_count(trials):
    """A trial of a study has one seed on both sides: five transfers of one backbone are no further seeds."""
    planned = trials({})
    more = trials({f"ReSim-C4 {FROZEN}": 90.0})
    for record in more:
        record["transfer"]["seed"] = 0
    found = tables.collect(planned)
    assert studies.judge(PLAN, tables.collect([*more, *planned])) == studies.judge(PLAN, found)
    assert studies.seeds_run(PLAN, tables.collect(more)) == []
    plan = studies.load_studies()["mini-first"]
    assert not plan.pins({side: {"seed": seed} for side, seed in (("pretrain", 1), ("transfer", 2))})


def test_trials_that_deviate_do_not_count(trials, make_record):
    one, all_of_a_row = trials({}), trials({})
    for record in [one[-1], *(r for r in all_of_a_row if r["pretrain"]["id"] == "mini-resim-c4")]:
        record["transfer"]["deviations"] = {"max_iters": [400, 1]}
    for records in (one, all_of_a_row):
        assert studies.judge(PLAN, tables.collect(records)) == []


def test_the_table_says_what_was_found(trials):
    text = tables.render(tables.collect(trials({f"ReSim-C4 {FROZEN}": 23.0, f"random init. {FROZEN}": 13.0})), ["mini"])
    frozen = text[text.index("frozen backbone") :]
    assert "above random init.: holds" in frozen and "above MoCo-v2: holds" in frozen
    flat = " ".join(text.split())
    assert f"All {len(PLAN.seeds)} seeds of the study have run." in flat
    assert "• Primary: ReSim-C4 is above MoCo-v2 with a frozen backbone. AP holds: +3." in flat
    assert f", n {len(PLAN.seeds)}, r 0." in flat
    assert flat.count("• Secondary: ") == 5 and flat.count("; AP75 ") == 2
    assert "frozen backbone. Slope of log AP over the IoU holds: +" in flat


# ---------------------------------------------------------------- one more trial against the recorded ones


@pytest.fixture
def regress(tmp_path):
    def run(new, kept):
        from resim_bench import record

        for name, records in (("new", new), ("kept", kept)):
            for one in records:
                record.write(tmp_path / name, one)
        text, code = tables.regress(tmp_path / "new", tmp_path / "kept")
        return " ".join(text.split()), code

    return run


def test_the_smallest_drop_that_would_be_seen(regress, trials):
    kept = trials({})
    text, code = regress([], kept)
    chosen = ("mini-moco-v2", "mini-voc-frozen")
    recorded = [r["metrics"]["AP"] for r in kept if (r["pretrain"]["id"], r["transfer"]["id"]) == chosen]
    low, high = prediction_interval(recorded)
    mean = np.mean(recorded)
    assert f"MoCo-v2 (frozen backbone) AP {mean:.1f} {low:.1f} … {high:.1f} {mean - low:.1f} none" in text
    assert code == 0


@pytest.mark.parametrize(("offset", "code"), [(0.0, 0), (-9.0, 1), (9.0, 1)])
def test_a_new_trial_belongs_inside(regress, trials, offset, code):
    new = trials({f"MoCo-v2 {FROZEN}": 20.0 + offset}, seeds=[0], noise=0.0)
    text, found = regress(new, trials({}))
    assert found == code
    assert text.count("(seed 0) inside") == 6 - code
    assert ("Regression: MoCo-v2 (frozen backbone) AP" in text) == bool(code)


def test_the_recorded_trials_are_not_held_against_themselves(regress, trials):
    text, code = regress(trials({}), trials({}))
    assert "inside" not in text and code == 0, "they are in the work directory, too, where the study ran"


def test_an_unfinished_study_predicts_nothing(regress, trials):
    text, code = regress(trials({}, [0]), trials({}, PLAN.seeds[:-1]))
    assert "99 %" not in text and code == 0


def pinned(records):
    """The plan as one of an earlier edition whose protocols are those of the records."""
    digests = {side: {r[side]["id"]: digest(r[side]["protocol"]) for r in records} for side in ("pretrain", "transfer")}
    return dataclasses.replace(PLAN, id="first", pinned=digests)


def test_an_earlier_edition_is_judged_by_the_protocols_of_its_day(trials, monkeypatch):
    """Its records are its table's alone, and today's are no longer compared with them."""
    records = trials({f"ReSim-C4 {FROZEN}": 23.0, f"random init. {FROZEN}": 13.0})
    first = pinned(records)
    monkeypatch.setattr(studies, "load_studies", lambda: {"first": first})
    frame = tables.collect(records)
    assert all(one.verdict == HOLDS for one in studies.judge(first, frame) if one.claim.primary)
    assert set(frame[frame.table == "mini-controls"].trials) == {0}, "which has two of its rows"

    later = make_later(records)
    assert set(tables.collect(later)[frame.table == PLAN.table].trials) == {0}
    both = tables.collect([*later, *records])
    assert set(both[both.table == PLAN.table].trials) == {len(PLAN.seeds)}
    assert set(both[(both.table == "mini-controls") & (both.pretrain == "mini-moco-v2")].trials) == {len(PLAN.seeds)}


def test_an_earlier_edition_predicts_no_trial_of_today(regress, trials, monkeypatch):
    kept = trials({})
    monkeypatch.setattr(tables.show.regress, "load_studies", lambda: {"first": pinned(kept)})
    text, code = regress(make_later(trials({}, seeds=[0])), kept)
    assert "A new trial of" not in text and code == 0


def test_what_an_earlier_edition_found_is_kept_in_its_file(trials, monkeypatch):
    """A seed of its under another protocol is a further one of the table."""
    records = trials({})
    monkeypatch.setattr(studies, "load_studies", lambda: {"first": pinned(records)})
    assert {tables.file_of(one) for one in records} == {"first"}
    assert {tables.file_of(one) for one in make_later(records)} == {"mini"}


def make_later(records):
    """The same trials under a protocol of another day."""
    return [r | {"pretrain": r["pretrain"] | {"protocol": {"batch": 32}}} for r in records]


def test_a_claim_may_ask_of_details(trials, monkeypatch):
    """It is judged as any other, and waits for records that have them."""
    names = f"MoCo-v2 {FROZEN}", f"ReSim-C4 {FROZEN}"
    quantity = "cost of localisation less that of classification"
    claim = studies.Hypothesis(text="x", above=[names[0]], below=[names[1]], metrics=[quantity], primary=True)
    study = dataclasses.replace(PLAN, claims=[claim])
    monkeypatch.setattr(studies, "load_studies", lambda: {"mini": study})
    records = trials({})
    for record in records:
        del record["detail"]
    assert studies.judge(study, tables.collect(records)) == []
    for number, record in enumerate(records):
        far = 4.0 if record["pretrain"]["id"] == "mini-moco-v2" else 1.0
        costs = dict.fromkeys(ERRORS, 1.0) | {"localisation": far + number % 5 / 10}
        record["detail"] = {"errors": {"box": {"0.5": costs}}}
    (judged,) = studies.judge(study, tables.collect(records))
    assert judged.verdict == HOLDS and judged.found.mean == pytest.approx(3.0, abs=0.3)
