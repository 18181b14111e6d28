"""Which language a call asks for. PURE.

What the call says itself goes first (Accept-Language, RFC 3261 §20.3), then what its trunk is set to, then what is
spoken where the caller's number belongs.
"""

from __future__ import annotations

from typing import Final

_SPOKEN: Final = """
am: ET
ar: AE BH DJ DZ EG EH IQ JO KM KW LB LY MA MR OM PS QA SA SD SO SY TD TN YE
az: AZ
be: BY
bg: BG
bn: BD
bs: BA
ca: AD
cs: CZ
da: DK FO GL
de: AT BE CH DE LI LU
dv: MV
dz: BT
el: CY GR
en: AC AG AI AS AU BB BM BS BW BZ CA CC CK CM CX DM FJ FK FM GB GD GG GH GI GM GU GY IE IM IN IO JE JM KE KI KN KY LC LR
en: LS MG MH MP MS MT MU MW NA NF NG NR NU NZ PG PH PK PN PR PW RW SB SC SD SG SH SL SS SX SZ TA TC TK TO TT TV TZ UG UM
en: US VC VG VI VU WS ZA ZM ZW
es: AR BO CL CO CR CU DO EC ES GQ GT HN MX NI PA PE PR PY SV UY VE
et: EE
fa: AF IR
fi: FI
fo: FO
fr: BE BF BI BJ BL CA CD CF CG CH CI CM DJ FR GA GF GN GP GQ HT KM LU MC MF MG ML MQ NC NE PF PM RE RW SC SN TD TF TG
fr: VU WF YT
ga: IE
he: IL
hi: IN
hr: BA HR
hu: HU
hy: AM
id: ID
is: IS
it: CH IT SM VA
ja: JP
ka: GE
kk: KZ
kl: GL
km: KH
ko: KP KR
ky: KG
lb: LU
lo: LA
lt: LT
lv: LV
mk: MK
mn: MN
ms: BN MY SG
mt: MT
my: MM
nb: NO SJ
ne: NP
nl: AW BE BQ CW NL SR SX
pl: PL
ps: AF
pt: AO BR CV GQ GW MO MZ PT ST TL
ro: MD RO
ru: BY KG KZ RU
si: LK
sk: SK
sl: SI
sm: WS
so: SO
sq: AL XK
sr: BA ME RS XK
sv: AX FI SE
sw: KE TZ UG
ta: LK SG
tg: TJ
th: TH
ti: ER
tk: TM
to: TO
tr: CY TR
uk: UA
ur: PK
uz: UZ
vi: VN
zh: CN HK MO SG TW
"""
"""Languages with an official part in a country or in wide use there, by ISO 639 and ISO 3166."""


def _by_country() -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for row in _SPOKEN.split("\n"):
        language, _, countries = row.partition(":")
        for country in countries.split():
            found[country] = (*found.get(country, ()), language)
    return found


_LANGUAGES_OF: Final = _by_country()


def spoken_in(country: str) -> tuple[str, ...]:
    """The languages of a country (``CH``), none of them before the others; () where it is not known."""
    return _LANGUAGES_OF.get(country, ())


def preferred(accept_language: str) -> tuple[str, ...]:
    """The languages that the value of an Accept-Language header puts first, in lower case; () where it names none.

    Of ``de-CH, fr;q=0.8`` that is ``de-ch``; several only where they have the same weight.
    """
    weights: dict[str, float] = {}
    for part in accept_language[:1000].split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weight = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                try:
                    weight = float(value)
                except ValueError:
                    weight = 0.0
        if name and name != "*" and 0 < weight <= 1:
            weights.setdefault(name, weight)
    best = max(weights.values(), default=0.0)
    return tuple(name for name, weight in weights.items() if weight == best)


def speaks(wanted: str, spoken: str) -> bool:
    """Whether ``spoken`` is the language ``wanted``: ``de`` is any German, ``de-at`` that of Austria only."""
    return spoken == wanted or spoken.startswith(f"{wanted}-")
