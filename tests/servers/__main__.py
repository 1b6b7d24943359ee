"""`python -m tests.servers`: a server as a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import signal
from pathlib import Path

from tests.servers import OllamaServer, OpenAIServer, Script, by_text, mixed, ok, steps

KINDS = {"openai": OpenAIServer, "ollama": OllamaServer}


def main() -> None:
    args = parse()
    asyncio.run(serve(args))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.servers", description=__doc__)
    parser.add_argument("--kind", choices=KINDS, default="openai")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--script", choices=["by_text", "first"], default="by_text")
    parser.add_argument("--delay-ms", type=float, default=0.0)
    parser.add_argument("--faults", type=float, default=0.0, help="their share, 0 to 1")
    parser.add_argument("--no-schema", action="store_true", help="refuse requests with a schema")
    parser.add_argument("--journal", type=Path, required=True)
    return parser.parse_args()


def script_of(args: argparse.Namespace) -> Script:
    delay_s = args.delay_ms / 1000
    first = steps(then=ok(delay_s=delay_s))
    answers = first if args.script == "first" else by_text(delay_s=delay_s)
    return mixed(args.faults, otherwise=answers)


async def serve(args: argparse.Namespace) -> None:
    """Serve until SIGTERM; the address is told on stdout once it can be reached."""
    done = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, done.set)
    server = KINDS[args.kind](
        script_of(args),
        port=args.port,
        takes_schema=not args.no_schema,
        journal=args.journal,
    )
    async with server:
        print(server.base_url, flush=True)
        await done.wait()


if __name__ == "__main__":
    main()
