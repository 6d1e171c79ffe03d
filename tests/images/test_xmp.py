"""One property of an XMP packet is set, and everything else stays byte for byte."""

from __future__ import annotations

import time

import pytest

from clipcond.images.xmp import LARGEST, new_packet, ratings, with_rating

HEAD = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
TAIL = "</rdf:RDF></x:xmpmeta>"
XMP = 'xmlns:xmp="http://ns.adobe.com/xap/1.0/"'


def packet(body: str) -> bytes:
    return (HEAD + body + TAIL).encode()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (f'<rdf:Description {XMP} xmp:Rating="1" xmp:Label="é"/>', f'<rdf:Description {XMP} xmp:Rating="4" xmp:Label="é"/>'),
        (f"<rdf:Description {XMP}\n xmp:Rating = '1'/>", f'<rdf:Description {XMP}\n xmp:Rating="4"/>'),
        (f"<rdf:Description {XMP}><xmp:Rating>1</xmp:Rating><xmp:Label>x</xmp:Label></rdf:Description>",
         f"<rdf:Description {XMP}><xmp:Rating>4</xmp:Rating><xmp:Label>x</xmp:Label></rdf:Description>"),
        (f"<rdf:Description {XMP}><xmp:Rating/></rdf:Description>",
         f"<rdf:Description {XMP}><xmp:Rating>4</xmp:Rating></rdf:Description>"),
        (f'<rdf:Description {XMP} xmp:Rating="1"/><rdf:Description {XMP} xmp:Rating="2"/>',
         f'<rdf:Description {XMP} xmp:Rating="4"/><rdf:Description {XMP}/>'),
        ('<rdf:Description xmlns:xap="http://ns.adobe.com/xap/1.0/" xap:Rating="-1"/>',
         '<rdf:Description xmlns:xap="http://ns.adobe.com/xap/1.0/" xap:Rating="4"/>'),
        ('<rdf:Description rdf:about="uuid:&lt;1" xmlns:o="urn:o" o:Rating="1"/>',
         '<rdf:Description rdf:about="uuid:&lt;1" xmlns:o="urn:o" o:Rating="1"/>'
         f'<rdf:Description rdf:about="uuid:&lt;1" {XMP} xmp:Rating="4"/>'),
        ("", f'<rdf:Description rdf:about="" {XMP} xmp:Rating="4"/>'),
    ],
)  # fmt: skip
def test_a_rating_is_replaced_or_added_and_never_doubled(before: str, after: str) -> None:
    once = with_rating(packet(before), 4)
    assert once == packet(after)
    assert with_rating(once, 4) == once
    assert ratings(with_rating(once, 0)) == ("0",)


def test_a_new_packet_has_the_rating() -> None:
    assert ratings(new_packet(3)) == ("3",)
    assert ratings(with_rating(new_packet(3), 5)) == ("5",)
    assert new_packet(3).startswith(b'<?xpacket begin="\xef\xbb\xbf" id=')


def test_rdf_that_is_empty_gets_a_description() -> None:
    empty = b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"/>'
    assert ratings(with_rating(empty, 2)) == ("2",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no XML in UTF-8"),
        (b"<x:xmpmeta", "is no XML in UTF-8"),
        ("<a/>".encode("utf-16"), "is no XML in UTF-8"),
        (b"<a/>", "holds no RDF"),
        (b'<!DOCTYPE a [<!ENTITY b "c">]><a/>', "declares entities"),
        (b" " * (LARGEST + 1), "is too large"),
        (packet(f'<!-- <rdf:Description {XMP} xmp:Rating="1"/> -->'), "in a way that clipcond cannot change"),
        (packet("".join(f'<a xmlns:p{n}="http://ns.adobe.com/xap/1.0/"/>' for n in range(20_000))), "too many ways"),
    ],
)
def test_what_cannot_be_changed_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        with_rating(content, 1)


def test_hostile_packets_take_no_time() -> None:
    hostile = packet(f"<rdf:Description {XMP}/><!-- " + "<xmp:Rating " * 100_000 + "-->")
    began = time.process_time()
    assert ratings(with_rating(hostile, 1)) == ("1",)
    assert time.process_time() - began < 2
