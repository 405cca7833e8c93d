"""Values of every kind that a file or a command line can hold, for tests by property."""

from hypothesis import strategies as st

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, 1, -1, 2**31, 2**63, 2**64, -(2**63) - 1, 10**400]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["", " ", "None", "5", "1e3", "a\nb", "\x00", "\udcff", "SGD", "MoCo", "Random", "query"]),
)
JSON_LIKE = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.one_of(st.text(max_size=5), st.sampled_from(["type", "c4", "lr"])), inner, max_size=3),
    ),
    max_leaves=6,
)


def set_at(config, name, value):
    """Put `value` at a dotted name of nested dicts and lists; a tuple on the way becomes a list."""
    first, _, rest = name.partition(".")
    key = int(first) if isinstance(config, list) else first
    if not rest:
        config[key] = value
        return
    if isinstance(config[key], tuple):
        config[key] = list(config[key])
    set_at(config[key], rest, value)
