"""How long a server asks to be left alone."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def retry_after_s(value: str | None, now: datetime) -> float | None:
    """Seconds to wait by a `Retry-After` header: a number or an HTTP date; None if neither.

    Source: RFC 9110, section 10.2.3; fractions of a second are accepted as well.
    """
    if value is None:
        return None
    try:
        wait_s = float(value)
    except ValueError:
        wait_s = _until(value, now)
    return max(wait_s, 0.0) if math.isfinite(wait_s) else None


def _until(date: str, now: datetime) -> float:
    try:
        then = parsedate_to_datetime(date)
    except (ValueError, OverflowError):
        return math.nan
    # An HTTP date is in GMT; without a zone the parser leaves it naive.
    return ((then if then.tzinfo else then.replace(tzinfo=UTC)) - now).total_seconds()
