"""The one exception that stands for a user's mistake."""


class UserError(ValueError):
    """A mistake in what the user asked for, told in one sentence: what was wrong, and what is allowed.

    The command line prints the sentence and exits with code 2, without a traceback.
    """
