"""The star rating in an XMP packet: one property is set, and every other byte of the packet stays as it is."""

from __future__ import annotations

import re
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

LARGEST = 1 << 22  # bytes of a packet
_MOST_PREFIXES = 8  # of one namespace
_XMP = "http://ns.adobe.com/xap/1.0/"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_NEW = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{rdf}">'
    '<rdf:Description rdf:about="" xmlns:xmp="{xmp}" xmp:Rating="{rating}"/>'
    '</rdf:RDF></x:xmpmeta>\n<?xpacket end="w"?>'
)


def new_packet(rating: int) -> bytes:
    """Return a packet that holds a rating and nothing else."""
    return _NEW.format(rdf=_RDF, xmp=_XMP, rating=rating).encode()


def with_rating(packet: bytes, rating: int) -> bytes:
    """Return a packet with its rating replaced, or added where it has none.

    Raises ValueError, in a few words, for a packet that is too large, not UTF-8, no XML or no RDF.
    """
    root = _parsed(packet)
    text = packet.decode()
    edited, count = _replaced(text, rating)
    if not count:
        edited = _added(text, root, rating)
    content = edited.encode()
    if ratings(content) != (str(rating),):  # a comment, perhaps, that looks like the property
        raise ValueError("its XMP packet is written in a way that clipcond cannot change")
    return content


def ratings(packet: bytes) -> tuple[str, ...]:
    """Return the values of every rating in a packet. Raises ValueError as `with_rating` does."""
    found = []
    for description in _parsed(packet).iter(f"{{{_RDF}}}Description"):
        found += [value for name, value in description.attrib.items() if name == f"{{{_XMP}}}Rating"]
        found += [(child.text or "").strip() for child in description.findall(f"{{{_XMP}}}Rating")]
    return tuple(found)


def _parsed(packet: bytes) -> ElementTree.Element:
    if len(packet) > LARGEST:
        raise ValueError(f"its XMP packet is too large ({len(packet):,} bytes)")
    if b"<!DOCTYPE" in packet or b"<!ENTITY" in packet:
        raise ValueError("its XMP packet declares entities")
    try:
        packet.decode()
        return ElementTree.fromstring(packet.strip(b"\0 \r\n\t"))
    except (UnicodeDecodeError, ElementTree.ParseError, ValueError, RecursionError) as error:
        raise ValueError("its XMP packet is no XML in UTF-8") from error


def _replaced(text: str, rating: int) -> tuple[str, int]:
    """The text with its first rating replaced and any further ones removed; and their number."""
    count = 0

    def attribute(found: re.Match[str]) -> str:
        nonlocal count
        count += 1
        return f'{found[1]}{found[2]}="{rating}"' if count == 1 else ""

    def element(found: re.Match[str]) -> str:
        nonlocal count
        count += 1
        return f"<{found[1]}>{rating}</{found[1]}>" if count == 1 else ""

    prefixes = set(re.findall(rf"""xmlns:([\w.-]+)\s*=\s*["']{re.escape(_XMP)}["']""", text))
    if len(prefixes) > _MOST_PREFIXES:
        raise ValueError("its XMP packet names one namespace in too many ways")
    for prefix in sorted(prefixes):
        name = rf"{re.escape(prefix)}:Rating"
        text = re.sub(rf"""(\s)({name})\s*=\s*(?:"[^"<]*"|'[^'<]*')""", attribute, text)
        text = re.sub(rf"<({name})(?:\s[^<>]*)?(?:/>|>[^<]*</{name}\s*>)", element, text)
    return text, count


def _added(text: str, root: ElementTree.Element, rating: int) -> str:
    """The text with a description more, about what the others are about."""
    end = re.search(r"</([\w.-]+):RDF\s*>", text)
    if end is None:
        empty = re.search(r"<(([\w.-]+):RDF)((?:\s[^<>]*)?)/>", text)
        if empty is None:
            raise ValueError("its XMP packet holds no RDF")
        opened = f"<{empty[1]}{empty[3]}></{empty[1]}>"
        return _added(text[: empty.start()] + opened + text[empty.end() :], root, rating)
    first = root.find(f".//{{{_RDF}}}Description")
    about = "" if first is None else first.get(f"{{{_RDF}}}about", "")
    added = f'<{end[1]}:Description {end[1]}:about={quoteattr(about)} xmlns:xmp="{_XMP}" xmp:Rating="{rating}"/>'
    return text[: end.start()] + added + text[end.start() :]
