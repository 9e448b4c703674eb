"""The errors a user can cause, each a sentence naming the culprit and the way out.

Anything else that is raised is a bug and keeps its traceback.
"""


class UnclipError(Exception):
    """The family: one line on the command line (exit code 2), a 4xx in a server."""


class OptionError(UnclipError):
    """An option, preset or override that does not exist or has an impossible value."""


class PromptError(UnclipError):
    """A prompt that cannot be used, such as an empty one."""


class ImageError(UnclipError):
    """An image file that cannot be read, or an output that cannot be written."""


class CheckpointError(UnclipError):
    """A model folder or weight file that is missing, damaged or of another structure."""


class DataError(UnclipError):
    """A dataset without a usable sample, or one whose layout is not understood."""


class TrainingError(UnclipError):
    """A training that cannot start, continue or resume; NaN losses name step and batch."""
