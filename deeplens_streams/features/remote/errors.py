"""What can go wrong with a picture in another process, and how it is told of here."""

from deeplens_streams.errors import (
    DeepLensError,
    TooLarge,
    TooManyFrames,
    TooManyPixels,
    UndecodableImage,
    UnsupportedFormat,
    UnsupportedKind,
)

#: By code: what says that a picture can never succeed.
PICTURE_ERRORS: dict[str, type[DeepLensError]] = {
    each.code: each
    for each in (
        *(TooLarge, TooManyFrames, TooManyPixels),
        *(UndecodableImage, UnsupportedFormat, UnsupportedKind),
    )
}


class ExtractionFailed(Exception):
    """Something that nobody expected went wrong with one picture; another attempt may succeed.

    No `DeepLensError`, so that whoever counts attempts takes it as any other mistake and keeps
    its stack trace. What is known of the other process's trace is a note of it.
    """
