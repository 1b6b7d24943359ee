"""What makes two texts the same text."""

from __future__ import annotations

import hashlib
import unicodedata


def normalise(text: str) -> str:
    """The form in which texts are compared: Unicode NFKC, casefolded, white space collapsed.

    Only for comparing: models and judges see the text as it was written.
    """
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def text_key(text: str) -> str:
    """The identity of a text: SHA-256 of its normalised form, 64 hexadecimal digits."""
    # A lone surrogate can reach us through an escape in JSON; it must not break the identity.
    return hashlib.sha256(normalise(text).encode("utf-8", "surrogatepass")).hexdigest()


def encodable(text: str) -> str:
    """The text with "?" for each half of a surrogate pair, which UTF-8 does not hold."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
