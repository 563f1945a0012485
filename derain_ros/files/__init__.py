"""Pictures, videos and pairs of them, and where frames come from."""

from derain_ros.text import UserError


class FileError(UserError, ValueError):
    """A file cannot be read or written as asked, or does not fit; the message says what to do."""
