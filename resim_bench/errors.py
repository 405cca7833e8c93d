"""The one exception that a user is meant to read."""

_IN_A_TRACEBACK = "resim_bench.errors.UserError: "


INTERRUPTED = "\nresim-bench: interrupted; start it again, trainings with --resume, to continue"


class UserError(Exception):
    """Bad input, said in one sentence: what is wrong and what to do about it.

    The command line prints the sentence and exits with code 2, without a traceback. As text it is one line, whatever
    names it holds, and the sentence alone where a loader's worker raised it: torch hands on that traceback as the
    message.
    """

    def __str__(self) -> str:
        return one_line(super().__str__().rpartition(_IN_A_TRACEBACK)[2])


def one_line(text: str) -> str:
    """`text` with line breaks and what else cannot be seen written as Python would."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text.strip())
