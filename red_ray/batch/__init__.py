"""Classifies tables of any size, shard by shard; a bad row is told apart, not dropped."""

from red_ray.batch.counts import BatchCounts
from red_ray.batch.job import Job
from red_ray.batch.local import Escalate, classify_here, classify_shard
from red_ray.batch.parts import Finished, PartsFolder, parts_path
from red_ray.batch.remote_parts import RemoteParts
from red_ray.batch.rows import COLUMNS
from red_ray.batch.shards import CHUNK_ROWS, SHARD_ROWS, Shard, read_shards

__all__ = [
    "CHUNK_ROWS",
    "COLUMNS",
    "SHARD_ROWS",
    "BatchCounts",
    "Escalate",
    "Finished",
    "Job",
    "PartsFolder",
    "RemoteParts",
    "Shard",
    "classify_here",
    "classify_shard",
    "parts_path",
    "read_shards",
]
