"""The one exception that a user is meant to read."""


class UserError(Exception):
    """Bad input, said in one sentence: what is wrong and what to do about it.

    The command line prints the sentence and exits with code 2, without a traceback.
    """
