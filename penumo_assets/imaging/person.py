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
    "男 男性 남 남성 남자 ذكر mannl nam lakilaki pria ชาย זכר पुरुष ανδρας mies barbat ♂",
    "F": "f female woman girl feminine feminin feminino femenino femminile femmina fem w weiblich frau madchen "
    "maedchen femme fille mujer hembra nina donna mulher v vrouw vrouwelijk meisje kvinde kvinna kvinne kvinnlig "
    "kobieta k zena zensky kadın kadin ж жен женский женщина 女 女性 여 여성 여자 أنثى "
    "weibl nu perempuan wanita หญิง נקבה महिला femea γυναικα nainen femeie ♀",
    "O": "o other d divers diverse intersex nonbinary x andere autre otro altro outro",
}
_SEX_OF = {_plain(word): code for code, words in _SEXES.items() for word in words.split()}

_NO_IDS = (
    "unknown unk unkn na nan none null nil missing notavailable notapplicable notknown notgiven notspecified "
    "notrecorded unspecified undefined undisclosed empty blank noid nopatientid anonymous anonymized anonymised anonym "
    "anon deidentified removed redacted tbd tba test patient patientid id mrn unbekannt inconnu desconocido "
    "desconhecido sconosciuto onbekend okand okant ukjent ukendt nieznany x no name noname given available applicable "
    "known recorded specified unnamed unidentified dummy default keine keiner ohne angabe sin sem sans dato dados "
    "nombre disponible deid ref value div0 num неизвестно 未知 不明 匿名 없음 미상"
)
_MISSING = frozenset(_plain(word) for word in _NO_IDS.split())
# What a spreadsheet makes of a long number: several patients end under one such id.
_SPREADSHEET_NUMBER = re.compile(r"\d([.,]\d+)?E\+\d+", re.IGNORECASE)
_UNITS = {
    "Y": "y yr yrs year years yo j jahr jahre jahren a an ans ano anos anni jaar ar r rok let "
    "лет год года г 岁 歳 才 세 살 yas yil tuoi",
    "M": "m mo mos mon month months monat monate monaten mois mes meses mese mesi maand maanden",
    "W": "w wk wks week weeks woche wochen semaine semaines semana semanas settimane",
    "D": "d day days tag tage tagen jour jours dia dias giorni dag dagen",
}
_UNIT_OF = {_plain(word): code for code, words in _UNITS.items() for word in words.split()}


def sex_code(text: str) -> str | None:
    """``M``, ``F`` or ``O`` for a whole word that says so, or several of one meaning, in several languages; ``None``
    for any other."""
    plain = _plain(text)
    codes = {_SEX_OF.get(word) for word in re.findall(r"[^\W_]+", plain)}
    alone = _SEX_OF.get(plain) or _SEX_OF.get(re.sub(r"[\W_]", "", plain))
    return alone or (codes.pop() if len(codes) == 1 else None)


def age_in_years(value: str) -> int | None:
    """Years, at most 90, from a DICOM age string (``062Y``, ``018M``) or a bare number; ``None`` above 120."""
    match = re.fullmatch(r"(\d{1,3})([YMWD]?)", value)
    if match is None:
        return None
    years = int(match[1]) // {"Y": 1, "": 1, "M": 12, "W": 52, "D": 365}[match[2]]
    return min(years, 90) if years <= 120 else None


def age_as_written(text: str) -> int | None:
    """`age_in_years` of what a table says: also ``62.5``, ``62,5``, ``18 months``, ``2y 3m``, ``>89`` and ``90+``."""
    bare = re.sub(r"[\s.]+$|[\s./-](?=[^\d\s])|\s|\+$", "", _plain(text))
    if re.fullmatch(r"[>≥]=?\d+", bare):  # a cap as ours, which hides the oldest
        bare = str(int(re.sub(r"\D", "", bare)) + bare.startswith(">"))
    match = re.fullmatch(r"0*(\d{1,5})(?:[.,]\d*)?([^\W\d]*?)(?:old|(?<=y)\d+m|(?<=years)\d+months?)?", bare)
    unit = _UNIT_OF.get(match[2], "") if match else ""
    if match is None or (match[2] and not unit):
        return None
    return age_in_years(match[1] + unit)


def is_missing(patient_id: str) -> bool:
    """Whether an id stands for its absence: empty, words such as ``unknown``, ``n/a`` or ``no name``, dashes, zeros,
    ``-1``, or a number that a spreadsheet has rounded (``1.23E+11``)."""
    plain = _plain(patient_id)
    word = re.sub(r"[\W_]", "", plain)
    nothing = not word or word in _MISSING or all(each in _MISSING for each in re.findall(r"[^\W_]+", plain))
    filled = re.fullmatch(r"0+|9{6,}|x{2,}", word) or re.fullmatch(r"\s*-\d{1,4}(\.0)?\s*|#name\?", plain)
    return nothing or bool(filled) or bool(_SPREADSHEET_NUMBER.fullmatch(patient_id.strip()))


def same_but_zeros(one: str, other: str) -> bool:
    """Whether two ids differ in nothing but what a spreadsheet does to numbers: leading zeros, a final ``.0``."""
    numbers = [re.sub(r"\.0+$", "", each.strip()).lstrip("0") for each in (one, other)]
    return same_id(*numbers) and not same_id(one, other)


def same_id(one: str, other: str) -> bool:
    """Whether two ids are the same to a person: case, spaces around and Unicode's two forms aside."""
    return _composed(one) == _composed(other)


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip().casefold()
