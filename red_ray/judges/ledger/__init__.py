"""The ledger: every request and every verdict, kept before anyone sees it."""

from red_ray.judges.ledger.database import is_url
from red_ray.judges.ledger.entries import (
    UNKNOWN,
    HumanVerdict,
    Kept,
    Received,
    Record,
    RequestCounts,
    Review,
    Sent,
    Spent,
    Unsent,
)
from red_ray.judges.ledger.lease import Lease
from red_ray.judges.ledger.store import MAX_REVIEWS, Entry, Ledger, utc_now

__all__ = [
    "MAX_REVIEWS",
    "UNKNOWN",
    "Entry",
    "HumanVerdict",
    "Kept",
    "Lease",
    "Ledger",
    "Received",
    "Record",
    "RequestCounts",
    "Review",
    "Sent",
    "Spent",
    "Unsent",
    "is_url",
    "utc_now",
]
