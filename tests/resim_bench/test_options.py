"""`--cfg-options`: what mmengine's DictAction reads, read the same; what it stumbles over, one sentence."""

import argparse
import math
import string

import pytest
from hypothesis import example, given
from hypothesis import settings as bounded
from hypothesis import strategies as st
from mmengine.config import DictAction

from resim_bench.cli import options

AS_DICT_ACTION = [
    *("5", "-5", "1e-3", "1_000", "true", "False", "None", "abc", "data/a(1)/b", "a[1", "it's", "x=y", ""),
    *("1,2", "[1,2]", "(1,2)", "(0.4,)", "[]", "()", "(5)", "a,b", "ace,", "[a, b]", "[(1, 2), [a, b], c]"),
    *("[(1333,640),(1333,800)]", "'[1,2]'", '"5"', "'a'", "[[1,2],[3]]", "[1,true,None,x]", "nan,1"),
]


def same(one, other):
    return repr(one) == repr(other)


@pytest.mark.parametrize("text", AS_DICT_ACTION)
def test_it_reads_what_dict_action_reads(text):
    assert same(options.parse(f"a.b={text}"), ("a.b", DictAction._parse_iterable(text)))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("palm tree", "palm tree"),
        ("palm tree, dog", ["palm tree", "dog"]),
        ("['palm tree','1',2]", ["palm tree", "1", 2]),
        ("'a,b'", ["a", "b"]),
        ("['a,b',\"c]\"]", ["a,b", "c]"]),
        ("(1,2),(3,4)", [(1, 2), (3, 4)]),
        ("[it's,b]", ["it's", "b"]),
        ("1,,2", [1, "", 2]),
        (" 8 ", 8),
        ("1e400", math.inf),
    ],
)
def test_it_reads_what_dict_action_does_not(text, value):
    assert same(options.parse(f"a={text}")[1], value)


@pytest.mark.parametrize(
    "text", ["batch", "=5", " =5", "", "batch=[1,2", "batch=1,2]", "a=[1,2)", "a=(1,(2)", "a=[1]2", "a=['1]"]
)
def test_what_cannot_be_read_is_one_sentence(text):
    with pytest.raises(ValueError, match="is no KEY=VALUE|do not match") as refusal:
        options.parse(text)
    assert f"'{text}'" in str(refusal.value)


def test_options_add_up_and_stand_once(capsys):
    parser = argparse.ArgumentParser()
    parser.add_argument("-o", nargs="+", action=options.Options, default={})
    assert parser.parse_args(["-o", "a=1", "b=x", "-o", "c=[1]"]).o == {"a": 1, "b": "x", "c": [1]}
    assert parser.parse_args([]).o == {}
    with pytest.raises(SystemExit):
        parser.parse_args(["-o", "a=1", "-o", "a=2"])
    assert "argument -o: a is given twice: give it once" in capsys.readouterr().err


@bounded(max_examples=300, deadline=None)
@given(st.text(string.ascii_lowercase + "0123456789.,()[]'\" =\n\x00", max_size=30))
@example("a='")
def test_any_text_is_read_or_refused(text):
    try:
        setting, _ = options.parse(text)
    except ValueError as refusal:
        assert "\x00" in text or str(refusal)
    else:
        assert setting and text.startswith(f"{setting}") or text.strip().startswith(setting)


VALUES = st.recursive(
    st.one_of(st.integers(), st.booleans(), st.none(), st.text(string.ascii_letters, min_size=1, max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.lists(inner, max_size=3).map(tuple)),
    max_leaves=8,
)


@bounded(max_examples=200, deadline=None)
@given(st.lists(VALUES, max_size=4))
def test_a_python_list_is_read_back(value):
    assert options.parse(f"a={value!r}") == ("a", value)
