"""Judges that answer which label fits a text, the pool that asks them, and the ledger."""

from red_ray.judges.base import NONE_OPTION, Judge, question_key
from red_ray.judges.ledger import Ledger
from red_ray.judges.pool import Limits, PoolStats, ValidatorPool
from red_ray.judges.spec import make_judge

__all__ = [
    "NONE_OPTION",
    "Judge",
    "Ledger",
    "Limits",
    "PoolStats",
    "ValidatorPool",
    "make_judge",
    "question_key",
]
