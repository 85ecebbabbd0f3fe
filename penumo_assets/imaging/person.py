"""Who a film is of, as headers and tables write it: sex and age as codes, and patient ids that name nobody."""

import re
import unicodedata


def _plain(text: str) -> str:
    """Lower case without accents."""
    decomposed = unicodedata.normalize("NFKD", text.strip().casefold())
    return "".join(each for each in decomposed if not unicodedata.combining(each))


_SEXES = {
    "M": "m male man boy masculine masculin masculino maschile maschio masc mannlich mann maennlich junge homme garcon "
    "hombre varon nino uomo homem mannelijk jongen mand mannlig pojke mezczyzna muz muzsky erkek м муж мужской мужчина "
    "男 男性 남 남성 남자 ذكر",
    "F": "f female woman girl feminine feminin feminino femenino femminile femmina fem w weiblich frau madchen "
    "maedchen femme fille mujer hembra nina donna mulher v vrouw vrouwelijk meisje kvinde kvinna kvinne kvinnlig "
    "kobieta k zena zensky kadın kadin ж жен женский женщина 女 女性 여 여성 여자 أنثى",
    "O": "o other d divers diverse intersex nonbinary x andere autre otro altro outro",
}
_SEX_OF = {_plain(word): code for code, words in _SEXES.items() for word in words.split()}

_NO_IDS = (
    "unknown unk unkn na nan none null nil missing notavailable notapplicable notknown notgiven notspecified "
    "notrecorded unspecified undefined undisclosed empty blank noid nopatientid anonymous anonymized anonymised anonym "
    "anon deidentified removed redacted tbd tba test patient patientid id mrn unbekannt inconnu desconocido "
    "desconhecido sconosciuto onbekend okand okant ukjent ukendt nieznany x"
)
_MISSING = frozenset(_NO_IDS.split())
# What a spreadsheet makes of a long number: several patients end under one such id.
_SPREADSHEET_NUMBER = re.compile(r"\d([.,]\d+)?E\+\d+", re.IGNORECASE)
_UNITS = {
    "Y": "y yr yrs year years yo j jahr jahre jahren a an ans ano anos anni jaar ar r rok let",
    "M": "m mo mos mon month months monat monate monaten mois mes meses mese mesi maand maanden",
    "W": "w wk wks week weeks woche wochen semaine semaines semana semanas settimane",
    "D": "d day days tag tage tagen jour jours dia dias giorni dag dagen",
}
_UNIT_OF = {_plain(word): code for code, words in _UNITS.items() for word in words.split()}


def sex_code(text: str) -> str | None:
    """``M``, ``F`` or ``O`` for a whole word that says so, in several languages; ``None`` for any other."""
    return _SEX_OF.get(re.sub(r"[\W_]", "", _plain(text)))


def age_in_years(value: str) -> int | None:
    """Years, at most 90, from a DICOM age string (``062Y``, ``018M``) or a bare number; ``None`` above 120."""
    match = re.fullmatch(r"(\d{1,3})([YMWD]?)", value)
    if match is None:
        return None
    years = int(match[1]) // {"Y": 1, "": 1, "M": 12, "W": 52, "D": 365}[match[2]]
    return min(years, 90) if years <= 120 else None


def age_as_written(text: str) -> int | None:
    """`age_in_years` of what a table says: also ``62.5``, ``62,5`` and ``18 months``."""
    match = re.fullmatch(r"0*(\d{1,5})(?:[.,]\d*)?([^\W\d]*)", re.sub(r"[\s./]+$|\s|(?<=y)/(?=o)", "", _plain(text)))
    unit = _UNIT_OF.get(match[2], "") if match else ""
    if match is None or (match[2] and not unit):
        return None
    return age_in_years(match[1] + unit)


def is_missing(patient_id: str) -> bool:
    """Whether an id stands for its absence: empty, a word such as ``unknown`` or ``n/a``, dashes, zeros, or a
    number that a spreadsheet has rounded (``1.23E+11``)."""
    word = re.sub(r"[\W_]", "", _plain(patient_id))
    nothing = not word or word in _MISSING or set(word) == {"0"}
    return nothing or re.fullmatch(r"9{6,}", word) is not None or bool(_SPREADSHEET_NUMBER.fullmatch(patient_id))


def same_but_zeros(one: str, other: str) -> bool:
    """Whether two ids differ in nothing but what a spreadsheet does to numbers: leading zeros, a final ``.0``."""
    numbers = [re.sub(r"\.0+$", "", each.strip()).lstrip("0") for each in (one, other)]
    return same_id(*numbers) and not same_id(one, other)


def same_id(one: str, other: str) -> bool:
    """Whether two ids are the same to a person: case, spaces around and Unicode's two forms aside."""
    return _composed(one) == _composed(other)


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip().casefold()
