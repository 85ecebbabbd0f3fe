"""The projection of a radiograph, however a header or a table writes it."""

import re
import unicodedata

_WHOLE = {"L": "LATERAL", "LL": "LATERAL", "RL": "LATERAL"}  # beside other words these are markers or initials
_SIDE = "(L|R|LEFT|RIGHT)?"
_SUPPLEMENT = "(SUPINE|ERECT|UPRIGHT|PORTABLE|MOBILE|SITTING|SEMIERECT|BED|CHEST|THORAX|VIEW|AXIAL|HORIZONTAL|FLAT)?"
_CODES = tuple(
    (code, re.compile(pattern))
    for code, pattern in (
        ("PA", f"(CHEST|THORAX|CXR)?PA{_SUPPLEMENT}|POSTER(O|IOR)?ANTERIOR"),
        ("AP", f"(CHEST|THORAX|CXR)?AP{_SUPPLEMENT}|ANTER(O|IOR)?POSTERIOR"),
        ("FRONTAL", "FRONTAL[A-Z]?|FACE|FRENTE|FRONT"),
        ("LATERAL", f"{_SIDE}LAT(ERAL[A-Z]?|ERALVIEW|ERALIS)?{_SIDE}|SEITLICH|SEITE|PROFIL|PERFIL|PROFILE"),
        ("DECUBITUS", "[LR]LD|DECUB[A-Z]*"),
        ("OBLIQUE", "[LR][LAP]?O|OBL|OBLIQ[A-Z]*|OBLICU[A-Z]*|SCHRAG"),
    )
)
_SPLIT_WORDS = re.compile(r"\b(POSTER|ANTER)(O|IOR)[ _-]*(ANTERIOR|POSTERIOR)\b|\b([AP])[. -]+([AP])\b")


def view_code(name: str) -> str | None:
    """``PA``, ``AP``, ``LATERAL``, ``OBLIQUE`` or ``DECUBITUS`` for the many ways to write them, by whole words.

    A view is lateral only if a word says so and none says frontal: ``PA and lateral`` is an examination, of which this
    film may be either. A decubitus film is a frontal projection of a patient lying on one side, not a lateral view.
    """
    upper = unicodedata.normalize("NFKD", name.upper()).encode("ascii", "ignore").decode()
    words = re.findall(r"[A-Z]+", _SPLIT_WORDS.sub(r"\1\2\3\4\5", upper))
    if "".join(words) in _WHOLE:
        return _WHOLE["".join(words)]
    said = {code for word in words for code, pattern in _CODES if pattern.fullmatch(word)}
    for code in ("DECUBITUS", "OBLIQUE"):
        if code in said:
            return code
    said -= {"FRONTAL"} if said & {"PA", "AP"} else set()
    return said.pop() if len(said) == 1 and "FRONTAL" not in said else None
