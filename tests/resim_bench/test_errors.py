import pytest

from resim_bench.errors import UserError


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        ("no id matches 'a\nb': known are c", r"no id matches 'a\nb': known are c"),
        ("\x1b[31mred\r", r"\x1b[31mred"),
        ("a name \udcff", r"a name \udcff"),
        ("3 × ä …", "3 × ä …"),
        ("Caught UserError in DataLoader worker process 0.\nTraceback …\nresim_bench.errors.UserError: no.\n", "no."),
        ("Caught …\nresim_bench.errors.UserError: one\n\nDuring …\nresim_bench.errors.UserError: other\n", "other"),
    ],
)
def test_a_user_error_is_one_line(raised, said):
    assert str(UserError(raised)) == said
