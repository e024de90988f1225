"""Whether a drawing is readable, without a browser: texts inside, none upon another."""

import re
import xml.etree.ElementTree as ElementTree

from framework import check

SVG = "{http://www.w3.org/2000/svg}"
PITCH = 0.6021  # of the widest of the usual fixed-pitch fonts


def boxes(root):
    """(left, top, right, bottom, text) of each text."""
    for text in root.iter(SVG + "text"):
        size, x, y = (float(text.get(k)) for k in ("font-size", "x", "y"))
        width = len(text.text) * size * PITCH
        left = x - {"middle": width / 2, "end": width}.get(text.get("text-anchor"), 0)
        yield left, y - 0.76 * size, left + width, y + 0.2 * size, text.text


def readable(svg, what):
    """Fails unless it is. Returns the texts."""
    root = ElementTree.fromstring(svg)
    _, _, width, height = map(float, root.get("viewBox").split())
    found = sorted(boxes(root), key=lambda b: b[1])
    check(found, f"{what}: no text at all")
    for box in found:
        check(box[0] > -1 and box[2] < width + 1 and box[1] > -1 and box[3] < height + 1,
              f"{what}: {box[4]!r} leaves the drawing ({width:.0f} x {height:.0f}): {box[:4]}")
    for i, a in enumerate(found):
        for b in found[i + 1:]:
            if b[1] >= a[3]:
                break
            check(b[0] >= a[2] or a[0] >= b[2] or b[3] <= a[1],
                  f"{what}: {a[4]!r} and {b[4]!r} overlap: {a[:4]} {b[:4]}")
    check(not re.search(r"(?:href|src)=|url\(|@import", svg), f"{what}: not self-contained")
    return [b[4] for b in found]


def drawings(page):
    """The drawings of a page of HTML."""
    return re.findall(r"<svg .*?</svg>", page, re.S)
