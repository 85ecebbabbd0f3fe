import hashlib
import hmac
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penumo_assets.imaging.deidentify import is_safe_id, pseudonym

KEY = b"0123456789abcdef"


def test_a_pseudonym_is_the_first_half_of_a_known_hmac() -> None:
    # RFC 4231, test case 6: the key is 131 bytes of 0xaa.
    expected = "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
    assert pseudonym("Test Using Larger Than Block-Size Key - Hash Key First", b"\xaa" * 131) == f"p-{expected[:16]}"


def test_another_key_or_another_patient_gives_another_pseudonym() -> None:
    assert len({pseudonym(name, key) for name in ("a", "b", "ab") for key in (KEY, KEY[::-1])}) == 6


def test_an_unsalted_hash_would_be_something_else() -> None:
    assert hashlib.sha256(b"HOSP-0042").hexdigest()[:16] not in pseudonym("HOSP-0042", KEY)


@given(st.text(min_size=1))
@example("\uf900")  # its composed form is another character
def test_any_id_gives_a_stable_safe_pseudonym(patient_id: str) -> None:
    name = pseudonym(patient_id, KEY)
    assert name == pseudonym(patient_id, KEY)
    assert is_safe_id(name)
    composed = unicodedata.normalize("NFC", patient_id)
    digest = hmac.new(KEY, composed.encode("utf-8", "surrogatepass"), "sha256").hexdigest()
    assert name == f"p-{digest[:16]}"


@pytest.mark.parametrize("key", [b"", b"short", b"0123456789abcde"])
def test_a_short_key_is_refused_without_being_shown(key: bytes) -> None:
    with pytest.raises(ValueError, match="at least 16") as error:
        pseudonym("a", key)
    assert not key or key.decode() not in str(error.value)


def test_an_empty_id_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        pseudonym("", KEY)


@pytest.mark.parametrize("value", ["a", "A-1", "person1_bacteria_2", "0.5", "x" * 128, "_a", "a-.b"])
def test_safe_ids_are_accepted(value: str) -> None:
    assert is_safe_id(value)


@pytest.mark.parametrize(
    "value", ["", "x" * 129, "..", "a..b", ".hidden", "-rf", "a/b", "a\\b", "a b", "ä", "a\n", "\n", "a\0", "%2e"]
)
def test_unsafe_ids_are_refused(value: str) -> None:
    assert not is_safe_id(value)
