"""The one exception that the command line shows as a sentence instead of a traceback."""


class UserError(Exception):
    """Something in the user's input that the user can put right.

    The message is one sentence that names the file, row and field and says what to do; the command
    line prints it alone and exits with code 2.
    """
