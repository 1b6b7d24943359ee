"""Loopback servers that speak Ollama's and OpenAI's protocol and misbehave as scripted."""

from tests.servers.ollama import OllamaServer
from tests.servers.openai import OpenAIServer
from tests.servers.process import ServerProcess
from tests.servers.scripted import ScriptedServer
from tests.servers.steps import (
    FAULTS,
    Received,
    Script,
    Step,
    by_text,
    costs,
    garbage,
    hang,
    hash_of,
    lie,
    loading,
    mixed,
    ok,
    raw,
    reset,
    right_option,
    says,
    status,
    steps,
    trickle,
    two_labels,
    wrong_type,
)

__all__ = [
    "FAULTS",
    "OllamaServer",
    "OpenAIServer",
    "Received",
    "Script",
    "ScriptedServer",
    "ServerProcess",
    "Step",
    "by_text",
    "costs",
    "garbage",
    "hang",
    "hash_of",
    "lie",
    "loading",
    "mixed",
    "ok",
    "raw",
    "reset",
    "right_option",
    "says",
    "status",
    "steps",
    "trickle",
    "two_labels",
    "wrong_type",
]
