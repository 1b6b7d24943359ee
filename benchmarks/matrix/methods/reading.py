"""The only reader of what a language model writes as an answer."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from benchmarks.matrix.methods.base import UNREADABLE
from red_ray.judges.prompts import fence_off, without_reasoning

_APOSTROPHES = re.compile(r"['’`]")
_BETWEEN = re.compile(r"[\W_]+")
# "not positive" names a label to deny it, and says nothing of which other one is meant.
_DENIALS = frozenset(
    {"not", "no", "nor", "neither", "never", "non", "without", "cannot"}
    | {"isnt", "arent", "wasnt", "doesnt", "dont"}
)

Parts = tuple[str, ...]


def read_answer(raw: str, words: Sequence[str]) -> int:
    """The index of the one word that an answer names, else `UNREADABLE`.

    Case, white space, punctuation, quotes and underscores do not count, nor does what stands
    in a <think> block. A word counts where it stands whole, and of words that contain each other
    the longest: `not_entailment` does not name `entailment`. An answer that names none or several,
    or denies what it names ("not positive"), is unreadable: never the first label.

    Args:
        raw: what was written.
        words: that may be answered, shape (n_labels,).
    """
    text = fence_off(without_reasoning(raw).strip())
    alike = [at for at, word in enumerate(words) if _bare(word) == _bare(text)]
    if len(alike) == 1:
        return alike[0]
    found = _named(_parts(text), _known(tuple(words)))
    return next(iter(found)) if len(found) == 1 else UNREADABLE


def _named(parts: Parts, known: dict[Parts, int]) -> set[int]:
    """Indices of the words that stand in an answer, and `UNREADABLE` where one is denied."""
    longest = max(map(len, known), default=0)
    found: set[int] = set()
    at = 0
    while at < len(parts):
        here = (parts[at : at + n] for n in range(longest, 0, -1))
        word = next((one for one in here if one in known), None)
        if word is not None:
            found.add(known[word])
        elif parts[at] in _DENIALS:
            found.add(UNREADABLE)
        at += len(word) if word else 1
    return found


@lru_cache(maxsize=64)
def _known(words: tuple[str, ...]) -> dict[Parts, int]:
    """Words in parts; those that cannot be told apart this way are left out."""
    parts = [_parts(word) for word in words]
    return {one: at for at, one in enumerate(parts) if one and parts.count(one) == 1}


def _bare(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _parts(text: str) -> Parts:
    return tuple(_BETWEEN.sub(" ", _APOSTROPHES.sub("", _bare(text))).split())
