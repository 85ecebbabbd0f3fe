"""Where MLflow is: an address that may be shown, with what is secret of it kept apart."""

import os
from urllib.parse import unquote, urlsplit

URI_VARIABLE = "MLFLOW_TRACKING_URI"
USER_VARIABLE = "MLFLOW_TRACKING_USERNAME"
SECRET_VARIABLES = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


def uri_from_environment() -> str:
    """``MLFLOW_TRACKING_URI``; empty if it is not set.

    MLflow prints the address that it is given and quotes it in errors. So the user and the password of a web address
    move into the variables that MLflow reads them from, here and for the processes that this one starts.
    """
    uri = os.environ.get(URI_VARIABLE, "")
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https") and "@" in parts.netloc:
        os.environ[USER_VARIABLE] = unquote(parts.username or "")
        os.environ[SECRET_VARIABLES[0]] = unquote(parts.password or "")
        uri = os.environ[URI_VARIABLE] = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return uri


def has_password(uri: str) -> bool:
    """Whether an address, such as a database's, holds a password."""
    return bool(urlsplit(uri).password)
