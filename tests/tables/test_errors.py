"""What errors cost, per row: means and spreads of what records say, what is left out, and the picture."""

import pytest

import tables
from resim_bench import cli, record
from resim_bench.errors import UserError
from resim_bench.record import ERRORS
from tables.show.figure import draw_bars


def with_costs(entry, first, kinds=("box",)):
    """The record, its costs rising by 1 from `first` in the order of their names; 10 less at an IoU of .75."""
    of = {
        iou: {name: first + number - less for number, name in enumerate(ERRORS)}
        for iou, less in (("0.5", 0.0), ("0.75", 10.0))
    }
    return entry | {"detail": {"errors": dict.fromkeys(kinds, of)}}


@pytest.fixture
def mini(make_record):
    """Of mini: two seeds of one row, one of two of another, and none of the others."""
    return [
        with_costs(make_record("mini-resim-c4", "mini-voc-full", seeds=(1, 1)), 20.0),
        with_costs(make_record("mini-resim-c4", "mini-voc-full", seeds=(2, 2)), 22.0),
        with_costs(make_record("mini-moco-v2", "mini-voc-frozen", seeds=(1, 1)), 30.0),
        make_record("mini-moco-v2", "mini-voc-frozen", seeds=(2, 2)),
        make_record("mini-random", "mini-voc-frozen", seeds=(1, 1)),
    ]


def cells(text, label):
    return [line.split() for line in text.splitlines() if line.strip().startswith(label)]


def test_a_row_has_the_mean_over_its_seeds_and_their_spread(mini):
    text = tables.errors(tables.collect(mini))
    numbers = [f"{21.0 + number:.1f}" for number in range(9)]
    stricter = [f"{11.0 + number:.1f}" for number in range(9)]
    assert cells(text, "ReSim-C4") == [["ReSim-C4", *numbers, "2"], ["ReSim-C4", *stricter, "2"]]
    assert cells(text, "±") == [["±", *["1.4"] * 9]] * 2, "none beneath a single trial"
    headings = [line for line in text.splitlines() if "IoU 0" in line]
    assert headings == [
        f"{group}, boxes at IoU {iou}" for group in ("full fine-tuning", "frozen backbone") for iou in ("0.5", "0.75")
    ]
    assert max(map(len, text.splitlines())) <= 100


def test_what_a_record_does_not_say_is_left_out_and_said(mini):
    text = " ".join(tables.errors(tables.collect(mini)).split())
    assert (
        "• Left out, as their records do not say what errors cost: random init. (frozen backbone), 1 of 1 trial; "
        "MoCo-v2 (frozen backbone), 1 of 2 trials." in text
    )
    assert "do not add up" in text


def test_only_tables_with_costs_are_shown_and_no_row_twice(mini):
    text = tables.errors(tables.collect(mini))
    assert "Mini: the same recipes" in text and text.count("═\n") == 1, "mini-controls has the same MoCo-v2"
    assert "Mini controls" in tables.errors(tables.collect(mini), ["mini-controls"])


def test_masks_have_lines_of_their_own(make_record):
    table = tables.load_tables()["coco-1x"]
    row = table.rows[0]
    metrics = dict.fromkeys(table.metrics, 10.0)
    entry = with_costs(make_record(row.pretrain, row.transfer, metrics=metrics), 20.0, ("box", "mask"))
    text = tables.errors(tables.collect([entry]))
    assert [line for line in text.splitlines() if " at IoU " in line] == [
        f"{kind} at IoU {iou}" for kind in ("boxes", "masks") for iou in ("0.5", "0.75")
    ]
    assert "\n\n\nAP at one IoU" in text and "\n\n\n\n" not in text, "two empty lines before what it means"


def test_what_deviates_is_said(make_record):
    entry = make_record("mini-resim-c4", "mini-voc-full", deviations={"epochs": [8, 1]})
    assert "deviates: pretrain.epochs 8 → 1." in tables.errors(tables.collect([with_costs(entry, 20.0)]))


def test_without_costs_there_is_a_sentence(make_record, tmp_path):
    frame = tables.collect([make_record("mini-random", "mini-voc-full")])
    assert tables.errors(frame).startswith("No record says what errors cost")
    text = " ".join(tables.errors(frame, ["mini"]).split())
    assert "random init. (full fine-tuning), 1 of 1 trial." in text and "No record of mini says what" in text
    with pytest.raises(UserError, match="no record of mini says what errors cost"):
        tables.draw_errors(frame, "mini", tmp_path / "a.svg")
    with pytest.raises(UserError, match="there is no table 'nope'"):
        tables.errors(frame, ["nope"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.svg", "a.png"])
def test_the_same_records_give_the_same_picture(mini, tmp_path, name):
    frame = tables.collect(mini)
    files = [tmp_path / folder / name for folder in ("one", "other")]
    for file in files:
        tables.draw_errors(frame, "mini", file)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_the_picture_has_a_bar_per_kind_and_row(mini, tmp_path):
    file = tmp_path / "a.svg"
    tables.draw_errors(tables.collect(mini), "mini", file)
    text = file.read_text()
    words = ("full fine-tuning, boxes at IoU 0.5", "MoCo-v2", "ReSim-C4", "classification", "missed", "negatives")
    assert all(f">{word}<" in text for word in words) and "0.75" not in text
    assert text.count("<pattern") == 1, "of two rows: colours are not the only sign"


def test_bars_stand_around_their_label(tmp_path, monkeypatch):
    """Whichever rows the other panels have."""
    panels = {"one": {"a": [(1.0, 0.0)]}, "other": {"b": [(1.0, 0.0)], "c": [(1.0, 0.0)]}}
    drawn = []
    bar = lambda panel, places, heights, width, **how: drawn.append((*places, width))  # noqa: E731
    monkeypatch.setattr("matplotlib.axes.Axes.bar", bar)
    draw_bars(panels, ["label"], "AP", tmp_path / "a.svg")
    assert drawn == [pytest.approx(bar) for bar in ((0.0, 0.8), (-0.2, 0.4), (0.2, 0.4))]


def test_the_command_prints_and_draws_them(mini, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tables, "RECORDS", tmp_path / "kept")
    for entry in mini:
        record.write(tmp_path / "records", entry)
    place = ["--work-dir", str(tmp_path)]
    assert cli.main(["tables", "mini", "--errors", *place]) == 0
    assert cells(capsys.readouterr().out, "MoCo-v2")[0][:2] == ["MoCo-v2", "30.0"]
    assert cli.main(["figure", "mini", str(tmp_path / "a.svg"), "--errors", *place]) == 0
    assert (tmp_path / "a.svg").exists()
