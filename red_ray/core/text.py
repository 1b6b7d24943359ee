"""What a text is, and what makes two the same."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Sequence


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


def checked_texts(texts: Iterable[str]) -> Sequence[str]:
    """The texts, as they are where they are a list or a tuple.

    Raises:
        TypeError: it is one string or a table, or holds something else than strings.
    """
    if isinstance(texts, str):
        raise TypeError("a sequence of texts is wanted, got one string; put it into a list")
    if getattr(texts, "ndim", 1) != 1:
        raise TypeError("a sequence of texts is wanted, got a table; give its column of texts")
    given = texts if isinstance(texts, list | tuple) else list(texts)
    for position, text in enumerate(given):
        if not isinstance(text, str):
            raise TypeError(f"texts[{position}] is a {type(text).__name__}; give strings only")
    return given
