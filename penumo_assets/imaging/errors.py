"""The one exception the imaging functions raise for an image that cannot be used."""


class ImageRejected(ValueError):
    """This image cannot go on, and why.

    Parameters
    ----------
    code : str
        A short stable identifier, grouped and counted in manifests and metadata
        (``truncated``, ``not_an_image``, ``lateral_view``, ``implausible_mask`` ...).
    reason : str
        One sentence for a person: what is wrong and, where there is one, the remedy.
        It never repeats header text, because header text can hold patient data.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def is_decoder_failure(error: BaseException) -> bool:
    """Whether a decoder raised ``error``: decoders written in Rust raise panics, which are no ``Exception``."""
    return isinstance(error, Exception) or type(error).__module__ == "pyo3_runtime"
