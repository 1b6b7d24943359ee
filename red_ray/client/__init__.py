"""The HTTP client of the endpoint: `Client`, and `AsyncClient` for asyncio."""

from __future__ import annotations

from red_ray.client.blocking import Client
from red_ray.client.nonblocking import AsyncClient

__all__ = ["AsyncClient", "Client"]
