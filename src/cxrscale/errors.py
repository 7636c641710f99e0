"""The one error that a user is meant to read."""


class StudyError(Exception):
    """Something the user gave cannot work: the message says what, where, got, expected and what to do.

    Jobs print it without a traceback; any other exception is a bug and keeps its traceback.
    """
