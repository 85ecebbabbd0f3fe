"""Names that mean nothing outside: keyed pseudonyms of patients and files, and ids that are safe in a path."""

import hashlib
import hmac
import re
import unicodedata

_MAX_ID = 128
_SAFE_ID = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9._-]{{0,{_MAX_ID - 1}}}")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)  # names of devices on Windows
_MIN_KEY_BYTES = 16
_PSEUDONYM = re.compile(r"p-[0-9a-f]{16}")
PICTURE_EXTENSIONS = (".png", ".jpg", ".jpeg")
_EXTENSIONS = (".dcm", *PICTURE_EXTENSIONS)


def pseudonym(patient_id: str, key: bytes) -> str:
    """Replace a patient id by ``p-`` and 16 hexadecimal digits, the same for the same id and key.

    HMAC-SHA-256 (RFC 2104, FIPS 198-1): without the key nobody can test which id a pseudonym
    stands for, which a plain hash of a short id would allow. 64 bits of it are kept: among a
    million patients the chance of any collision is below 3e-8. Two ways to write the same characters
    (Unicode's composed and decomposed form) give one pseudonym.

    Raises
    ------
    ValueError
        If the key has fewer than 16 bytes, or the id is empty.
    """
    if len(key) < _MIN_KEY_BYTES:
        raise ValueError(f"the pseudonym key has {len(key)} bytes; it needs at least {_MIN_KEY_BYTES}")
    if not patient_id:
        raise ValueError("an empty patient id has no pseudonym")
    composed = unicodedata.normalize("NFC", patient_id)
    return "p-" + hmac.new(key, composed.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:16]


def is_pseudonym(value: str) -> bool:
    """Whether an id can be what `pseudonym` makes."""
    return _PSEUDONYM.fullmatch(value) is not None


def is_plain_text(value: str) -> bool:
    """Whether ``value`` can be an id at all: 1 to 128 characters, all of which can be seen.

    Two ids that look alike must not be two patients because one holds a control character, a zero-width or a
    right-to-left mark.
    """
    return 0 < len(value) <= _MAX_ID and not any(unicodedata.category(each)[0] == "C" for each in value)


def file_pseudonym(name: str, key: bytes | None) -> str:
    """Replace a landed file's name, folders included, by 16 hexadecimal digits, and its extension if that is known.

    With a key nobody without it can test which name a pseudonym stands for. Without one it is a plain SHA-256, which
    hides the name from a reader, but not from somebody who guesses it whole.
    """
    content = name.encode("utf-8", "surrogatepass")
    digest = hmac.new(key, content, hashlib.sha256) if key else hashlib.sha256(content)
    extension = next((known for known in _EXTENSIONS if name.lower().endswith(known)), "")
    return digest.hexdigest()[:16] + extension


def is_safe_id(value: str) -> bool:
    """Whether ``value`` may become part of a file name or object key.

    1 to 128 characters of ``[A-Za-z0-9._-]``, without ``..``, not beginning with ``.`` or ``-``, not ending with ``.``,
    and no name of a device on Windows.
    """
    plain = _SAFE_ID.fullmatch(value) is not None and ".." not in value and not value.endswith(".")
    return plain and _RESERVED.fullmatch(value) is None
