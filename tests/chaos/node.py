"""Runs a process of the server as `waystation serve` and `waystation worker` do; the tests kill it from outside."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
from collections.abc import AsyncGenerator
from pathlib import Path

import uvloop

from waystation.api.server import ApiServer
from waystation.app import create_app
from waystation.catalog.project import Project, configure
from waystation.config import Settings
from waystation.process import Process, open_process
from waystation.services import Services
from waystation.telemetry.logs import configure_logs


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["serve", "worker"])
    parser.add_argument("-c", dest="config", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--with-worker", action="store_true")
    parser.add_argument("--worker-id")
    args = parser.parse_args(argv)
    settings, project = configure(args.config, root=args.config.parent)
    configure_logs(level=settings.log_level)
    uvloop.run(_serve(settings, project, args) if args.role == "serve" else _work(settings, project))
    return 0


async def _serve(settings: Settings, project: Project, args: argparse.Namespace) -> None:
    mine = settings if args.with_worker else settings.model_copy(update={"n_jobs_per_worker": 0})
    alone = bool(args.with_worker and args.worker_id)

    @contextlib.asynccontextmanager
    async def services() -> AsyncGenerator[Services]:
        async with open_process(mine, project, alone=alone, worker_id=args.worker_id, take_over=alone) as process:
            yield process.services
            await process.drain(settings.shutdown_grace_s)

    await ApiServer(create_app(services), host="127.0.0.1", port=args.port).serve()


async def _work(settings: Settings, project: Project) -> None:
    process: Process
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with open_process(settings, project, alone=False) as process:
        await stop.wait()
        await process.drain(settings.shutdown_grace_s)


if __name__ == "__main__":
    main()
