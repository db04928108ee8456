"""Street addresses: a street and its house number, as they are written in English, German, Dutch, French, Spanish,
Portuguese, Italian and Polish.

A street alone is no address, nor is a number; a year before a street (`in 2008 Wall Street fell`) isn't a house. Every
part of a pattern is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

Span = tuple[int, int, str]

_UP = "A-ZÀ-ÖØ-ÞĄĆĘŁŃŚŹŻŠŽČ"
_WORD = rf"[{_UP}][\w.'’-]{{0,30}}"
_HOUSE = r"\d{1,4}(?:[ -]?[a-zA-Z](?!\w))?(?:[/-]\d{1,4}[a-z]?)?(?!\w|[.,:]\d|[%€$£°])"
_DOOR = r"(?:,? (?:Apt|Apto|Apartamento|Appartamento|Piso|Puerta|Piano|Interno|Int|Bloco|Casa)\.? \d{1,4}[A-Za-zºª]?(?!\w)){0,2}"
_SUFFIXES = (
    "Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Place|Pl|Square|Sq|Terrace|Ter|Way|Parkway"
    "|Pkwy|Highway|Hwy|Circle|Cir|Close|Crescent|Gardens|Grove|Mews|Row|Walk|Trail|Alley|Plaza|Turnpike|Expressway"
    "|Freeway|Loop|Ridge|Heights|Hill|Hills|Meadows?|Mount|Park|Bypass|Bridge|Causeway|Junction|Springs?|Valley"
    "|Village|Crossing|Estates?|Green|Hollow|Landing|Manor|Orchard|Point|Rapids|Shores?|Station|Summit|Track|Union"
    "|Views?|Vista|Path|Mill|Lodge|Harbou?r|Knolls?|Commons?|Squares|Roads|Ridges|Wells|Forge"
)
_ENGLISH = re.compile(
    rf"(?<![\w$€£.,/:#-])(?:(?:Flat|Apt\.?|Unit|Studio) \d{{1,4}}[A-Za-z]?,? (?:\d{{1,4}}[A-Za-z]? )?"
    rf"|\d{{1,5}}[A-Za-z]?(?:-\d{{1,4}})? )"
    rf"(?:(?:[NSEW]|[NS][EW]|North|South|East|West)\.? )?"
    rf"(?P<name>(?:(?:{_WORD}|\d{{1,3}}(?:st|nd|rd|th)) ){{1,3}})(?:{_SUFFIXES})\b(?!['’-]\w)"
    r"(?:\.?,? (?:Apt|Apartment|Suite|Ste|Unit|Flat|#)\.? ?#?\w{1,6})?"
)
_NO_HOUSE_BEFORE = re.compile(
    r"(?i)\b(?:in|since|of|by|from|until|till|during|before|after|january|february|march|april|may|june|july|august"
    r"|september|october|november|december|chapter|section|version|page|the|top|all)[ ,]*\Z"
)
_NO_STREET = re.compile("Supreme|High|District|Appeals|Federal|Circuit|County|Crown|World|Central|National|Theme")
# A word of the second branch holds no hyphen: where a joint could be read in two ways, a row of them would be tried in all.
_GERMANIC = re.compile(
    rf"(?<!\w)(?P<street>[{_UP}][\w-]{{1,40}}?(?:straße|strasse|str\.|gasse|weg|allee|platz|ring|damm|ufer|chaussee|stieg"
    r"|straat|laan|plein|gracht|kade|singel|dijk|steeg|dreef|pad|hof|baan|boulevard"
    r"|-Straße|-Strasse|-Str\.|-Weg|-Allee|-Platz|-Gasse|-Ring|-Damm|-Ufer)"
    rf"|(?:[{_UP}][\w.]{{0,30}} ){{1,3}}(?:Straße|Str\.|Weg|Allee|Platz|Gasse|Ring|Damm|Ufer)) {_HOUSE}"
)
_NO_GERMANIC = re.compile(
    r"(?i)(?:park|sitz|stell|arbeits|listen|tabellen|start|speicher|studien|spiel|steh|lager|bau|flug|camping)platz"
    r"|(?:um|aus|rad|heim|rück|hin|fern|fluchtweg|rettungs|wander|halb|bundes)(?:weg|straße)|[wW]eg|ring|notepad|ipad|touchpad"
)
_FRENCH = re.compile(
    r"(?<![\w.,/:-])\d{1,4}(?: ?(?:bis|ter|quater|[A-D]))?,? "
    r"(?:[Rr]ue|[Aa]venue|[Aa]v\.|[Bb]oulevard|[Bb]d\.?|[Cc]hemin|[Aa]llée|[Ii]mpasse|[Pp]lace|[Qq]uai|[Rr]oute|[Pp]assage|[Ss]quare"
    r"|[Cc]ours|[Ss]entier|[Ff]aubourg) (?:(?:de la |de l['’]|du |des |de |d['’]|aux? |le |la |les )?)"
    rf"{_WORD}(?: (?:(?:de|du|des|la|le) ){{0,2}}{_WORD}){{0,3}}"
)
_LINKS = r"(?:(?:d[aeio]s?|del|dell[ao]|dei|la|las|los|el|y|e) |dell['’]|d['’]){0,3}"
_TYPE_FIRST = re.compile(
    r"(?<!\w)(?:Calle|C/|Avenida|Avda\.?|Av\.|Paseo|Plaza|Camino|Carretera|Ronda|Rambla|Glorieta|Callejón|Cañada|Cuesta"
    r"|Acceso|Alameda|Pasaje|Pasadizo|Vial|Urbanización|C\.|Rua|R\.|Vila|Parque|Residencial|Conjunto|Quadra|Chácara|Condomínio|Loteamento|Travessa|Praça|Largo|Estrada|Rodovia|Viela|Ladeira"
    r"|Via|Viale|Piazza|Piazzale|Corso|Vicolo|Strada|Contrada|Borgo|Rotonda|Incrocio|Stretto|Canale"
    r"|ul\.|ulica|ulicy|al\.|aleja|Aleja|pl\.|plac|os\.|Ulica) ?"
    rf"{_LINKS}{_WORD}(?: {_LINKS}{_WORD}){{0,4}},? (?:n[.ºo°]{{0,2}} ?|núm\. )?{_HOUSE}{_DOOR}"
)


def streets(text: str) -> Iterator[Span]:
    """Where somebody lives or works."""
    for found in _ENGLISH.finditer(text):
        if not _is_no_house(text, found):
            yield (*found.span(), "address")
    for found in _GERMANIC.finditer(text):
        if not _NO_GERMANIC.fullmatch(found["street"]):
            yield (*found.span(), "address")
    for pattern in (_FRENCH, _TYPE_FIRST):
        yield from ((*found.span(), "address") for found in pattern.finditer(text))


def _is_no_house(text: str, found: re.Match[str]) -> bool:
    """A year, or a number of things: `in 2008 Wall Street`, `the 9 Supreme Court judges`."""
    if _NO_STREET.match(found["name"]):
        return True
    return bool(_NO_HOUSE_BEFORE.search(text[max(0, found.start() - 16) : found.start()]))
