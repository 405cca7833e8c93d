import pytest

from resim_bench import experiments
from resim_bench.errors import UserError
from resim_bench.experiments import Experiment


def test_experiments_are_unique_and_in_table_order():
    pairs = experiments.experiments()
    assert len(pairs) == len(set(pairs))
    assert pairs[:5] == [
        Experiment("random", "voc-full"),
        Experiment("in100-supervised", "voc-full"),
        Experiment("in100-moco-v2", "voc-full"),
        Experiment("in100-resim-c4", "voc-full"),
        Experiment("in100-resim-c4-w16-s16", "voc-full"),
    ], "two rows of windows-full stand in in100-voc already"
    assert pairs[-1] == ("mini-resim-c4", "photos-cards-frozen")


def test_each_record_has_its_command():
    ids = ["voc-full", "mini-voc-frozen", "probe-mini", "readings-voc", "readings-mini"]
    assert [experiments.command_of(i) for i in ids] == ["transfer", "transfer", "probe", "judge", "judge"]


def test_paired_with():
    assert experiments.paired_with("voc-frozen") == [
        "in100-moco-v2",
        "in100-resim-c4-w16-s16",
        "in100-resim-c4-w48-s16",
        "in100-resim-c4",
        "in100-resim-c4-w64-s48",
    ]
    assert experiments.paired_with("voc-full")[:2] == ["random", "in100-supervised"]
    assert experiments.paired_with("coco-2x-fpn-t") == [f"in1k-resim-fpn-{n}00ep-release" for n in (2, 4)]
    assert experiments.paired_with("no-such-protocol") == []


def test_how_to_get():
    ids = ["random", "in1k-moco-v2-200ep", "given-a", "in1k-resim-c4-200ep", "given-a"]
    assert experiments.how_to_get(ids) == [
        "`make pretrain-random`",
        "`make pretrain-in1k`",
        "`resim-bench import FILE --as given-a`",
    ]
    assert experiments.how_to_get(["given-a", "given-b"]) == ["`resim-bench import` (given-a, given-b)"]
    assert experiments.how_to_get(["given-a", "given-b", "given-c"]) == ["`resim-bench import` (3 released backbones)"]
    assert experiments.how_to_get_one("random", seed=3) == "`resim-bench pretrain random --seed 3`"
    assert experiments.how_to_get_one("mine@5ep") == "`resim-bench pretrain mine --cfg-options keep=[5]`"


def test_released_for():
    assert experiments.released_for("voc-full") == ["given-moco-v2", "given-resim-c4", "given-resim-fpn-200ep"]
    assert experiments.released_for("voc-frozen") == []


def test_the_places_close():
    """Every id that a row names has a file or an address, and every other serves a row but for those that say so."""
    recipes, protocols, given = experiments.pretrain_ids(), experiments.transfer_ids(), experiments.released()
    pairs = experiments.experiments()
    released = {i for transfer_id in protocols for i in experiments.released_for(transfer_id)}
    no_row = {name for name, weights in given.items() if weights["title"].endswith("; no row's")}
    assert no_row == {"given-swav-200ep", "given-obow"}
    for known, named in (
        (recipes, {pair.pretrain_id for pair in pairs} | released),
        (protocols, {pair.transfer_id for pair in pairs}),
    ):
        says_so = {name for name, config in known.items() if "No row stands on it." in config.read_text()}
        assert says_so == known.keys() - named, "a config says whether a row stands on it"
    assert {pair.pretrain_id for pair in pairs} | released | no_row >= given.keys()
    for config in [*recipes.values(), *protocols.values()]:
        assert experiments.describe(config), f"{config} has no docstring"
    for name, weights in given.items():
        assert weights["title"] and weights["url"].startswith("https://"), name


@pytest.fixture
def suite(tmp_path, monkeypatch):
    """Another suite root with configs of its own, under the tables of this one."""
    for name in ("zebra", "in100-moco-v2", "random", "anteater", "_base"):
        place = tmp_path / "pretrain/configs" / f"{name}.py"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f'"""About {name}.\n\nMore."""\nraise RuntimeError("a config is never run here")\n')
    monkeypatch.setattr(experiments, "ROOT", tmp_path)
    return tmp_path


def test_ids_in_table_order_then_by_name_without_bases(suite):
    found = experiments.pretrain_ids()
    assert list(found) == ["random", "in100-moco-v2", "anteater", "zebra"]
    assert found["zebra"] == suite / "pretrain/configs/zebra.py"
    assert experiments.transfer_ids() == {}


def test_describe_is_the_first_line_and_runs_nothing(suite):
    config = suite / "pretrain/configs/zebra.py"
    assert experiments.describe(config) == "About zebra."
    config.write_text("lr = 1\n")
    assert experiments.describe(config) == ""


def test_select_by_exact_id_and_glob_in_the_given_order():
    known = ["random", "in100-moco-v2", "in100-a", "mini-moco-v2"]
    assert experiments.select("in100*", known) == ["in100-moco-v2", "in100-a"]
    assert experiments.select("in100-a", dict.fromkeys(known)) == ["in100-a"]
    assert experiments.select("*", known) == known


def test_a_pattern_means_ids_that_rows_name_and_others_where_there_are_none():
    recipes, protocols = experiments.pretrain_ids(), experiments.transfer_ids()
    assert experiments.select("in100-moco-v2*", recipes) == ["in100-moco-v2"]
    assert experiments.select("in100-moco-v2-lr06", recipes) == ["in100-moco-v2-lr06"]
    assert experiments.select("*-lr06", recipes) == ["in100-moco-v2-lr06", "in100-resim-c4-lr06"]
    assert "voc-full" in protocols and experiments.select_one("voc-f[ru]*l", protocols) == "voc-full"


def test_select_without_a_match_names_close_and_known_ids():
    known = ["random", "in100-moco-v2", "mini-moco-v2"]
    with pytest.raises(UserError, match="no id matches 'in100-mocov2': did you mean in100-moco-v2") as refusal:
        experiments.select("in100-mocov2", known)
    assert "known are random, in100-moco-v2, mini-moco-v2" in str(refusal.value)
    with pytest.raises(UserError, match="no id matches 'IN1k': known are random"):
        experiments.select("IN1k", known[:1])


def test_where_one_is_meant_several_are_said():
    known = ["random", "mini-a", "mini-b"]
    assert experiments.select_one("r*", known) == experiments.select_one("random", known) == "random"
    with pytest.raises(UserError, match=r"'mini-\*' matches 2 ids, mini-a, mini-b: give one of them"):
        experiments.select_one("mini-*", known)
    with pytest.raises(UserError, match="no id matches '': known are random, mini-a, mini-b"):
        experiments.select_one("", known)


def test_tables_are_read_in_their_own_order(tmp_path):
    """Of all papers and of what we ask of each ourselves; what a paper says of itself is no table."""
    (tmp_path / "first" / "ours").mkdir(parents=True)
    (tmp_path / "second").mkdir()
    for place, order in (("first/a", 2), ("first/ours/c", 3), ("second/b", 1), ("first/paper", 0), ("first/claims", 0)):
        (tmp_path / f"{place}.toml").write_text(f"order = {order}")
    found = experiments.reported_tables(tmp_path)
    assert list(found.items()) == [
        ("b", {"order": 1, "paper": "second"}),
        ("a", {"order": 2, "paper": "first"}),
        ("c", {"order": 3, "paper": "first"}),
    ]
