"""Loopback servers that speak Ollama's and OpenAI's protocol and misbehave as scripted."""

from tests.servers.ollama import OllamaServer
from tests.servers.openai import OpenAIServer
from tests.servers.scripted import (
    Received,
    ScriptedServer,
    Step,
    garbage,
    hang,
    ok,
    raw,
    reset,
    says,
    status,
    steps,
    wrong_type,
)

__all__ = [
    "OllamaServer",
    "OpenAIServer",
    "Received",
    "ScriptedServer",
    "Step",
    "garbage",
    "hang",
    "ok",
    "raw",
    "reset",
    "says",
    "status",
    "steps",
    "wrong_type",
]
