"""The projection of a radiograph, however a header or a table writes it."""

import re

_VIEWS = {
    "PA": "PA", "POSTEROANTERIOR": "PA", "AP": "AP", "ANTEROPOSTERIOR": "AP",
    "LL": "LATERAL", "RL": "LATERAL", "L": "LATERAL", "LAT": "LATERAL", "LATERAL": "LATERAL",
    "LLAT": "LATERAL", "RLAT": "LATERAL", "LEFTLATERAL": "LATERAL", "RIGHTLATERAL": "LATERAL",
    "LATL": "LATERAL", "LATR": "LATERAL", "LLATERAL": "LATERAL", "RLATERAL": "LATERAL",
    "LLD": "DECUBITUS", "RLD": "DECUBITUS", "RLO": "OBLIQUE", "LLO": "OBLIQUE", "RAO": "OBLIQUE", "LAO": "OBLIQUE",
    "RPO": "OBLIQUE", "LPO": "OBLIQUE", "OBL": "OBLIQUE", "OBLIQUE": "OBLIQUE",
}  # fmt: skip


def view_code(name: str) -> str | None:
    """``PA``, ``AP``, ``LATERAL``, ``OBLIQUE`` or ``DECUBITUS`` for the many ways to write them.

    A decubitus film is a frontal projection of a patient lying on one side, not a lateral view.
    """
    name = re.sub(r"[^A-Z]", "", name.upper())
    if name in _VIEWS:
        return _VIEWS[name]
    for part, code in (("DECUB", "DECUBITUS"), ("LAT", "LATERAL"), ("OBL", "OBLIQUE")):
        if part in name:
            return code
    return name[:2] if name[:2] in ("PA", "AP") else None
