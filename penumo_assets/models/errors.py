"""The one exception for a model that cannot be used."""


class ModelError(ValueError):
    """A model that cannot be built or read; the message names the file or the field."""
