"""What English says for what is not written as words: one pass over the text, the first rule that fits. PURE."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from appliance.conversation.english_numbers import cardinal, digits, number, ordinal, year
from appliance.conversation.english_tables import (
    ABBREVIATIONS,
    AMERICAN_ENDINGS,
    CURRENCIES,
    FRACTIONS,
    INITIALISMS,
    LETTER_NAMES,
    MONTHS,
    READ_TLDS,
    SCALE_WORDS,
    TITLES,
    UNITS,
    URL_SYMBOLS,
    WEEKDAYS,
)

_Rule: TypeAlias = tuple[str, str, Callable[[re.Match[str], bool], str | None]]


_NUMBER: Final = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
_MONTH: Final = (
    r"(?:January|February|March|April|May|June|July|August|September|October|November|December"
    r"|(?:Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept|Sep|Oct|Nov|Dec)\b\.?)"
)
_HALF_DAY: Final = r"(?:[aApP]\.\s?[mM]\b\.?|[aApP][mM]\b)"
_OKAY: Final = "OK"
_KEYWORDS_STRICT: Final = (
    r"pass\s?code|code|pin|PIN|extension|ext\.?|reference|ref\.?|confirmation|tracking|zip|ZIP|postcode|"
    r"(?:ending|ends|end)\s+in"
)
_KEYWORDS: Final = (
    r"account|order|ticket|booking|policy|case|flight|invoice|serial|card|member|membership|license|number"
)
_LINK: Final = r"\s+(?:number|no\.?|code|is|is:|ID|#)"


def matches(text: str, *, american: bool = True) -> Iterator[tuple[int, int, str]]:
    """(start, end, what is said) for all that is said otherwise than written, in order.

    Args:
        american: month before day, no "and" in numbers, and American spelling.
    """
    for match in _PATTERN.finditer(text):
        assert match.lastgroup is not None
        said = _HANDLERS[match.lastgroup](match, american)
        if said is not None:
            yield match.start(), match.end(), said


# --- addresses ----------------------------------------------------------------------------------------------------


def _email(match: re.Match[str], american: bool) -> str:
    return _address(match.group())


def _url(match: re.Match[str], american: bool) -> str:
    return _address(re.sub(r"^(?:https?://)?(?:www\.)?", "", match.group()).rstrip("/"))


def _address(text: str) -> str:
    words: list[str] = []
    for part in re.findall(r"[A-Za-z]+|\d+|[^A-Za-z\d]", text):
        if part.isdigit():
            words.append(digits(part) if len(part) > 2 or part[0] == "0" else cardinal(int(part)))
        elif part.isalpha() and part.isascii():
            after_dot = bool(words) and words[-1] == "dot"
            spelled = (len(part) == 2 and after_dot and part not in READ_TLDS) or _no_vowel(part)
            words.append(_letters(part.upper()) if spelled else part)
        else:
            words.append(URL_SYMBOLS.get(part, ""))
    return " ".join(filter(None, words))


def _no_vowel(word: str) -> bool:
    return not re.search(r"[aeiouyAEIOUY]", word)


def _letters(text: str) -> str:
    return " ".join(LETTER_NAMES.get(letter, letter) for letter in text)


# --- dates and times ----------------------------------------------------------------------------------------------


def _date(day: int, month: int, year_text: str, american: bool, *, day_first: bool = False) -> str | None:
    if not (1 <= day <= 31 and 1 <= month <= 12):
        return None
    name, nth = MONTHS[month - 1], ordinal(day)
    if not american:
        name, nth = (f"the {nth} of", name) if day_first else (name, f"the {nth}")
    said = f"{name} {nth}"
    return f"{said}, {_year(year_text)}" if year_text else said


def _year(text: str) -> str:
    value = int(text)
    if len(text) == 2:
        value += 2000 if value < 70 else 1900
    return year(value)


def _month_number(name: str) -> int:
    return next(index for index, month in enumerate(MONTHS, 1) if month.startswith(name.rstrip(".")[:3]))


def _iso_date(match: re.Match[str], american: bool) -> str | None:
    years, month, day, separator = re.match(r"(\d{4})-(\d\d)-(\d\d)(T?)", match.group()).groups()  # type: ignore[union-attr]
    said = _date(int(day), int(month), years, american, day_first=True)
    return f"{said} at " if said and separator else said


def _numeric_date(match: re.Match[str], american: bool) -> str | None:
    first, second, years = re.split(r"[/.]", match.group())
    one, two = int(first), int(second)
    day, month = (two, one) if american and "." not in match.group() else (one, two)
    if month > 12 >= day:
        day, month = month, day
    return _date(day, month, years, american, day_first=True)


def _month_day(match: re.Match[str], american: bool) -> str | None:
    parts = re.match(rf"({_MONTH})\s+(\d{{1,2}})(?:st|nd|rd|th)?(?:,?\s+(\d{{4}}))?", match.group())
    assert parts is not None
    return _date(int(parts[2]), _month_number(parts[1]), parts[3] or "", american)


def _day_month(match: re.Match[str], american: bool) -> str | None:
    parts = re.match(
        rf"(?:the\s+)?(\d{{1,2}})(?:st|nd|rd|th)?\s+(?:of\s+)?({_MONTH})(?:,?\s+(\d{{4}}))?", match.group()
    )
    assert parts is not None
    as_written = american and re.search(r"\bof\b", match.group()) is not None
    return _date(int(parts[1]), _month_number(parts[2]), parts[3] or "", american and not as_written, day_first=True)


def _month_year(match: re.Match[str], american: bool) -> str:
    name, _, years = match.group().rpartition(" ")
    return f"{MONTHS[_month_number(name.strip()) - 1]} {_year(years)}"


def _month_alone(match: re.Match[str], american: bool) -> str:
    return MONTHS[_month_number(match.group()) - 1]


def _weekday(match: re.Match[str], american: bool) -> str:
    return WEEKDAYS[match.group().rstrip(".")]


def _time(match: re.Match[str], american: bool) -> str:
    parts = re.match(rf"(\d{{1,2}})(?:[:.](\d\d))?(?::(\d\d))?\s*({_HALF_DAY})?", match.group())
    assert parts is not None
    hour, minute, half = int(parts[1]), int(parts[2] or 0), (parts[4] or "").lower()[:1]
    if hour > 24 or minute > 59 or (half and not 1 <= hour <= 12):  # a score, a ratio
        return re.sub(r"[:.]?(\d+)", lambda part: f" {cardinal(int(part[1]))}", match.group()).strip()
    if not half and hour in (0, 24) and not minute and not parts[3]:
        return "midnight"
    if not half and (hour > 12 or hour == 0):
        half = "p" if hour > 12 and hour != 24 else "a"
    said = cardinal((hour - 1) % 12 + 1)
    if minute:
        said += f" {'oh ' if minute < 10 else ''}{cardinal(minute)}"
    elif not half:
        said += " o'clock"
    if parts[3] and int(parts[3]):
        said += f" and {_counted(parts[3].lstrip('0'), ('second', 'seconds'), american)}"
    return f"{said} {half}.m." if half else said


def _decade(match: re.Match[str], american: bool) -> str:
    text = match.group().strip("'’")[:-1]
    value = int(text)
    tens = cardinal(value % 100)
    plural = f"{tens[:-1]}ies" if value % 100 else "hundreds"
    return f"{cardinal(value // 100)} {plural}" if len(text) == 4 else plural


def _year_in_words(match: re.Match[str], american: bool) -> str:
    words, _, last = match.group().rpartition(" ")
    return f"{words} {_year(last)}"


def _years(match: re.Match[str], american: bool) -> str:
    first, last = re.findall(r"\d{4}", match.group())
    return f"{_year(first)} to {_year(last)}"


# --- numbers ------------------------------------------------------------------------------------------------------


def _phone(match: re.Match[str], american: bool) -> str:
    text = match.group()
    groups = re.findall(r"\d+", text)
    if len(groups) == 1:
        groups = _digit_groups(groups[0])
    return ("plus " if text.startswith("+") else "") + ", ".join(digits(group) for group in groups)


def _digit_groups(run: str) -> list[str]:
    """A long run of digits in groups that can be remembered: 415 555 0123, 4821 9930 1123 4456, 123 456."""
    if len(run) in (10, 11) and run[0] != "0":
        cut = len(run) - 10
        return [group for group in (run[:cut], run[cut : cut + 3], run[cut + 3 : cut + 6], run[cut + 6 :]) if group]
    size = 4 if len(run) % 4 == 0 else 3
    groups = [run[start : start + size] for start in range(0, len(run), size)]
    if len(groups) > 1 and len(groups[-1]) == 1:
        groups[-2:] = [groups[-2] + groups[-1]]
    return groups


def _long_number(match: re.Match[str], american: bool) -> str:
    return ", ".join(digits(group) for group in _digit_groups(match.group()))


def _after_keyword(match: re.Match[str], american: bool) -> str:
    text = match.group()
    code = re.search(r"[A-Z\d-]+$", text)
    assert code is not None
    front = text[: code.start()].replace("#", "number ").replace("ext. ", "extension ").replace("ref. ", "reference ")
    return front + _code(code.group(), spell=True)


def _code(text: str, *, spell: bool) -> str:
    """Letters and digits one by one. Without ``spell``, words and short numbers among them stay such."""
    groups: list[str] = []
    for group in re.findall(r"[A-Z]+|\d+", text):
        if group.isdigit():
            short = not spell and len(group) <= 2 and (group[0] != "0" or len(group) == 1)
            groups.append(cardinal(int(group)) if short else ", ".join(digits(one) for one in _digit_groups(group)))
        elif spell or len(group) <= 3 or _no_vowel(group):
            groups.append(_letters(group))
        else:
            groups.append(group)
    return (", " if spell else " ").join(groups)


def _letters_with_digits(match: re.Match[str], american: bool) -> str:
    text = match.group()
    return _code(text, spell=len(re.sub(r"\D", "", text)) > 2)


def _dotted(match: re.Match[str], american: bool) -> str:
    version, parts = match.group()[0] in "vV", match.group().lstrip("vV").split(".")
    address = len(parts) == 4 and not version
    said = (" dot " if address else " point ").join(digits(part) if address else cardinal(int(part)) for part in parts)
    return f"version {said}" if version else said


def _money(match: re.Match[str], american: bool) -> str:
    text = match.group()
    sign = re.search(r"[$€£¥₹]|USD|EUR|GBP|JPY|CHF", text)
    assert sign is not None
    amounts = re.findall(_NUMBER, text)
    scale_text = re.search(r"\d\s?(thousand|million|billion|trillion|bn|mn|[kKmMbB])\b", text)
    scale = SCALE_WORDS.get(scale_text[1].lower(), scale_text[1]) if scale_text else ""
    minus = "minus " if text[0] in "-−" else ""
    if len(amounts) == 2:
        return f"{minus}{number(amounts[0], with_and=not american)} to {_amount(amounts[1], scale, sign[0], american)}"
    return minus + _amount(amounts[0], scale, sign[0], american)


def _amount(text: str, scale: str, sign: str, american: bool) -> str:
    one, many, sub_one, sub_many = CURRENCIES[sign]
    whole, _, rest = text.replace(",", "").partition(".")
    if scale:
        return f"{number(text, with_and=not american)} {scale} {many}"
    if len(rest) > 2 or not sub_one:
        return f"{number(text, with_and=not american)} {many}"
    value, cents = int(whole), int(rest.ljust(2, "0") or 0)
    words = []
    if value or not cents:
        words.append(f"{cardinal(value, with_and=not american)} {one if value == 1 else many}")
    if cents:
        words.append(f"{cardinal(cents)} {sub_one if cents == 1 else sub_many}")
    return " and ".join(words)


def _cents(match: re.Match[str], american: bool) -> str:
    return _counted(match.group()[:-1].strip(), ("cent", "cents"), american)


def _percent(match: re.Match[str], american: bool) -> str:
    text = match.group()
    minus = "minus " if text[0] in "-−" else ""
    return f"{minus}{number(text.strip('-− %'), with_and=not american)} percent"


def _degrees(match: re.Match[str], american: bool) -> str:
    text = match.group()
    minus = "minus " if text[0] in "-−" else ""
    value = re.search(_NUMBER, text)
    assert value is not None
    scale = {"C": " Celsius", "F": " Fahrenheit"}.get(text[-1].upper(), "")
    return minus + _counted(value[0], ("degree", "degrees"), american) + scale


def _counted(text: str, unit: tuple[str, str], american: bool) -> str:
    return f"{number(text, with_and=not american)} {unit[text != '1']}"


def _measured(match: re.Match[str], american: bool) -> str:
    text = match.group().removesuffix(".")
    value = re.match(_NUMBER, text)
    assert value is not None
    said = _counted(value[0], UNITS[text[value.end() :].strip()], american)
    if american:
        for british, ours in AMERICAN_ENDINGS:
            said = said.replace(british, ours)
    return said


def _ordinal(match: re.Match[str], american: bool) -> str:
    return ordinal(int(re.sub(r"\D", "", match.group())), with_and=not american)


def _round_the_clock(match: re.Match[str], american: bool) -> str:
    return "twenty four seven"


def _fraction(match: re.Match[str], american: bool) -> str | None:
    whole, top, bottom = re.match(r"(?:(\d+)\s+)?(\d+)/(\d+)", match.group()).groups()  # type: ignore[union-attr]
    above, below = int(top), int(bottom)
    names = {2: ("half", "halves"), 3: ("third", "thirds"), 4: ("quarter", "quarters")}
    if below not in (2, 3, 4, 5, 6, 8, 10) or not 0 < above < below:
        return f"{match.group()[: match.group().index(top)]}{cardinal(above)} slash {cardinal(below)}"
    name = names.get(below, (ordinal(below), f"{ordinal(below)}s"))[above > 1]
    said = f"{cardinal(above) if above > 1 else ('an' if below == 8 else 'a')} {name}"
    return f"{cardinal(int(whole))} and {said}" if whole else said


def _vulgar(match: re.Match[str], american: bool) -> str:
    whole, sign = match.group()[:-1].strip(), match.group()[-1]
    return f"{cardinal(int(whole))} and {FRACTIONS[sign]}" if whole else FRACTIONS[sign]


def _number_sign(match: re.Match[str], american: bool) -> str:
    return "number "


def _minus(match: re.Match[str], american: bool) -> str:
    return "minus "


def _range(match: re.Match[str], american: bool) -> str:
    return " to "


def _plain(match: re.Match[str], american: bool) -> str:
    return number(match.group(), with_and=not american)


# --- words --------------------------------------------------------------------------------------------------------


def _title(match: re.Match[str], american: bool) -> str:
    return TITLES[match.group().rstrip(".")]


def _saint(match: re.Match[str], american: bool) -> str:
    following = match.string[match.end() :].lstrip()
    before = match.string[: match.start()].rstrip()
    street = re.search(r"(?:\b[A-Z]\w+|\d(?:st|nd|rd|th))$", before) is not None
    if street and not (following[:1].isupper() and re.search(r"(?i:\b(?:in|at|on|the|to|from|of|near)$)", before)):
        return "Street" + _kept_stop(match)
    return "Saint"


def _abbreviation(match: re.Match[str], american: bool) -> str:
    return ABBREVIATIONS[match.group().removesuffix(".")] + _kept_stop(match)


def _kept_stop(match: re.Match[str]) -> str:
    """The full stop of an abbreviation, where it ends the sentence too."""
    following = match.string[match.end() :]
    return "." if not following.strip() or re.match(r"\s+[A-Z]", following) else ""


def _with(match: re.Match[str], american: bool) -> str:
    return "without" if match.group().endswith("o") else "with"


def _initials(match: re.Match[str], american: bool) -> str | None:
    text = match.group()
    if text == _OKAY:
        return "okay"
    if "&" in text or text in INITIALISMS or (_no_vowel(text) and len(text) > 1):
        return _letters(text)
    return None


def _dotted_initials(match: re.Match[str], american: bool) -> str:
    return _letters(match.group().replace(".", "")) + _kept_stop(match)


def _and(match: re.Match[str], american: bool) -> str:
    return " and "


def _or(match: re.Match[str], american: bool) -> str:
    return " or " if match.string[: match.start()].lower().rpartition(" ")[2] != "and" else " "


def _plus(match: re.Match[str], american: bool) -> str:
    return " plus "


def _equals(match: re.Match[str], american: bool) -> str:
    return " equals "


def _times(match: re.Match[str], american: bool) -> str:
    return " by "


def _about(match: re.Match[str], american: bool) -> str:
    return "about "


def _arrow(match: re.Match[str], american: bool) -> str:
    return " to "


def _dropped(match: re.Match[str], american: bool) -> str:
    return " "


_NOT_WITHIN: Final = r"(?<![\w.,/-])"
_SIGNED: Final = rf"(?:(?<![\w\d])[-−])?{_NUMBER}"
_UNIT: Final = "|".join(sorted(map(re.escape, UNITS), key=len, reverse=True))
_SIGN: Final = r"(?:(?<![A-Z])(?:US|AU|CA|NZ|HK)?[$€£¥₹]|\b(?:USD|EUR|GBP|JPY|CHF)\s?)"
_SCALE: Final = r"(?:\s?(?:thousand|million|billion|trillion|bn|mn|[kKmMbB])\b)?"

_RULES: Final[tuple[_Rule, ...]] = (
    ("email", r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+", _email),
    (
        "url",
        r"(?:https?://|www\.)[^\s<>()]*[^\s<>().,;:!?'\"]"
        r"|(?<![\w@.-])[\w-]+(?:\.[\w-]+)*\.(?:com|org|net|io|edu|gov|info|app|dev|co\.uk|de|fr|eu)\b(?:/[\w./-]*\w)?",
        _url,
    ),
    ("iso_date", r"\b(?:19|20)\d\d-\d\d-\d\d(?:T(?=\d)|\b)", _iso_date),
    (
        "numeric_date",
        _NOT_WITHIN + r"\d{1,2}/\d{1,2}/(?:\d{4}|\d{2})(?![\w/])|" + _NOT_WITHIN + r"\d{1,2}\.\d{1,2}\.\d{4}(?!\w)",
        _numeric_date,
    ),
    (
        "month_day",
        rf"\b{_MONTH}\s+\d{{1,2}}(?:st|nd|rd|th)?\b(?![:/]|\.\d|\s?(?:%|percent))(?:,?\s+(?:1\d|20)\d\d\b)?",
        _month_day,
    ),
    (
        "day_month",
        rf"\b(?:the\s+)?\d{{1,2}}(?:st|nd|rd|th)?\s+(?:of\s+)?{_MONTH}(?!\w)(?:,?\s+(?:1\d|20)\d\d\b)?",
        _day_month,
    ),
    ("month_year", rf"\b{_MONTH}\s+(?:19|20)\d\d\b", _month_year),
    ("month_alone", r"\b(?:Jan|Feb|Apr|Aug|Sept|Sep|Oct|Nov|Dec)\b\.?(?=\s|,|$)", _month_alone),
    (
        "weekday",
        r"\b(?:Mon|Tues|Tue|Wed|Thurs|Thur|Thu|Fri)\b\.?(?=[\s,]|$)|\b(?:Sat|Sun)\b(?:\.(?=\s)|(?=,\s))",
        _weekday,
    ),
    (
        "time",
        rf"(?:(?<![\w.,:/$€£-])|(?<=\dT))\d{{1,2}}:\d\d(?::\d\d)?(?:\s?{_HALF_DAY})?(?![\w:%])"
        rf"|(?<=[–-])\d{{1,2}}:\d\d(?:\s?{_HALF_DAY})?(?![\w:%])"
        rf"|(?<![\w.,:/$€£])\d{{1,2}}(?:\.\d\d)?\s?{_HALF_DAY}",
        _time,
    ),
    ("years", r"(?<![\w/.,$€£-])(?:19|20)\d\d\s?[-–]\s?(?:19|20)\d\d(?![\w/.-]\d|\w)", _years),
    (
        "phone",
        r"(?<![\w.,/-])(?:\+\d[\d\s().-]{5,}\d|(?:1[ .-])?(?:\(\d{2,5}\)\s?|\d{3,5}[ .-])\d{2,4}(?:[ .-]\d{2,4})+"
        r"|\(\d{2,5}\)\s?\d{3,8}|\d{3}[-.]\d{4}|0\d{2,4}[ -]\d{4,8}|0\d{8,11})(?![\w%]|[.,:/-]\d)",
        _phone,
    ),
    (
        "after_keyword",
        rf"(?i:\b(?:{_KEYWORDS_STRICT})(?:{_LINK})*\s*[:#]?\s*|\b(?:{_KEYWORDS})(?:{_LINK})+\s*[:#]?\s*"
        rf"|\b(?:{_KEYWORDS})\s*[:#]\s*)(?=[A-Z-]*\d)(?=[A-Z\d-]{{3}})[A-Z\d]+(?:-[A-Z\d]+)*\b(?![.,:]\d|%)",
        _after_keyword,
    ),
    ("dotted", r"\b[vV]?\d+(?:\.\d+){2,}\b|\b[vV]\d+(?:\.\d+)?\b", _dotted),
    (
        "money",
        rf"[-−]?{_SIGN}{_NUMBER}(?:\s?[-–]\s?{_SIGN}?{_NUMBER})?{_SCALE}|{_NUMBER}{_SCALE}\s?(?:[€£]|(?:USD|EUR|GBP|JPY|CHF)\b)",
        _money,
    ),
    ("cents", rf"{_NUMBER}\s?¢", _cents),
    ("percent", rf"{_SIGNED}\s?%", _percent),
    ("degrees", rf"{_SIGNED}\s?°(?:\s?[CF]\b)?", _degrees),
    ("ordinal", r"\b\d[\d,]*(?:st|nd|rd|th)\b", _ordinal),
    ("decade", r"\b(?:1[5-9]|20)?\d0s\b|['’]\d0s\b", _decade),
    ("measured", rf"(?<![\w.,]){_NUMBER}\s?(?:{_UNIT})(?![\w/²³'’])(?:\.(?=\s[a-z]))?", _measured),
    ("round_the_clock", r"\b24/7\b", _round_the_clock),
    ("fraction", r"(?<![\w/.])(?:\d+\s+)?\d{1,2}/\d{1,2}(?![\w/])", _fraction),
    ("vulgar", r"(?:\b\d+\s?)?[½¼¾⅓⅔]", _vulgar),
    (
        "year_in_words",
        r"(?i:\b(?:in|since|by|until|before|after|during|year|for|early|late|mid)\s+)(?:19|20)\d\d\b(?!\s+(?!to\b|and\b|or\b|we\b|when\b|it\b|the\b|at\b|is\b|was\b)[a-z]|[,.]\d|\s?[%$€£])",
        _year_in_words,
    ),
    ("number_sign", r"#\s?(?=\d)|\bNo\.\s?(?=\d)|№\s?", _number_sign),
    ("long_number", r"(?<![\w.,])\d{7,}(?![\w]|[.,]\d)", _long_number),
    (
        "letters_with_digits",
        r"(?<![\w-])(?=[A-Z\d-]*\d)(?=[A-Z\d-]*[A-Z])(?!\d+-)[A-Z\d]+(?:-[A-Z\d]+)*(?![\w-])",
        _letters_with_digits,
    ),
    (
        "range",
        r"(?<=\d)\s?[-–]\s?(?=[$€£]?\d)|(?<=\d)\s?–\s?(?=\d)|(?<=m\.)\s?[-–]\s?(?=\d)|(?<=[ap]m)\s?[-–]\s?(?=\d)",
        _range,
    ),
    ("minus", r"(?<![\w.)])[-−](?=\d)", _minus),
    ("times", r"(?<=\d)\s?[x×]\s?(?=\d)|×", _times),
    ("plain", rf"{_NUMBER}", _plain),
    ("title", rf"\b(?:{'|'.join(TITLES)})\.(?=\s)", _title),
    ("saint", r"\bSt\.(?=\s|$|,)", _saint),
    ("dotted_initials", r"\b(?:[A-Z]\.){2,}(?=\s|,|$|\?|!|')", _dotted_initials),
    ("with", r"\bw/o?(?=\s)", _with),
    (
        "abbreviation",
        r"\b(?:" + "|".join(re.escape(word) for word in ABBREVIATIONS) + r")\.(?=[\s,;)]|$)",
        _abbreviation,
    ),
    ("initials", r"(?<![\w&-])[A-Z](?:&?[A-Z])+(?![\w&])", _initials),
    ("and", r"\s*&\s*", _and),
    ("or", r"(?<=[a-z])/(?=[a-z])", _or),
    ("plus", r"(?<=\S)\s\+\s(?=\S)|(?<=\d)\+(?=\d)", _plus),
    ("equals", r"\s?=\s?", _equals),
    ("about", r"[~≈]\s?(?=\d|[$€£])", _about),
    ("arrow", r"\s?(?:→|->|=>)\s?", _arrow),
    ("dropped", r"[\\^<>{}_]+|\s?#(?=\w)", _dropped),
)
_HANDLERS: Final = {name: handler for name, _, handler in _RULES}
_PATTERN: Final = re.compile(
    r"(?:(?<![a-z])|(?![a-z]))(?:" + "|".join(f"(?P<{name}>{pattern})" for name, pattern, _ in _RULES) + ")"
)
"""No rule begins between two small letters: looking there would take most of the time."""
