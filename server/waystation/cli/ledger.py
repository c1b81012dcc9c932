"""The guards' ledger from the command line."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import BinaryIO

from waystation.catalog.project import configure
from waystation.cli.failures import CommandError, UsageError
from waystation.cli.migrating import settings_of
from waystation.cli.project_files import CONFIG_NAME
from waystation.cli.terminal import all_to_stdout, say
from waystation.errors import NotFound
from waystation.guarding.recalculation import Repriced, correct, exported, rebuild, reprice
from waystation.process import database_uri
from waystation_db.guard_ledger import Drift
from waystation_db.pool import Database
from waystation_guards.budget.limits import UNIT_SIZES
from waystation_guards.budget.pricing import NANO, Prices, rounded


def export_all(
    config: Path | None,
    *,
    tenant: str,
    since: datetime | None,
    until: datetime | None,
    output: Path | None,
    all_kinds: bool = False,
) -> None:
    """Write a tenant's entries as lines of JSON. `all_kinds`: also notes of alerts and self-tests.

    Raises:
        ConfigError: no DATABASE_URI. UsageError: the file cannot be opened, or no time is left.
        CommandError: it finds no room. DatabaseUnavailable: no Postgres.
    """

    if since is not None and until is not None and since >= until:
        raise UsageError(f"--until {until} is not after --since {since}: expected a time of which something is left")

    async def write(to: BinaryIO) -> int:
        count = 0
        async with _database(config) as db:
            async for page in exported(db, tenant, since=_utc(since), until=_utc(until), all_kinds=all_kinds):
                to.write(b"".join(entry + b"\n" for entry in page))
                count += len(page)
        to.flush()
        return count

    if output is None:
        with all_to_stdout():
            asyncio.run(write(sys.stdout.buffer))
        return
    try:
        file = output.open("wb")
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {error.strerror}") from None
    try:
        with file:
            count = asyncio.run(write(file))
    except OSError as error:
        raise CommandError(f"{output} cannot be written: {error.strerror}") from None
    say(f"Entries: {count}")


def recalculate_all(
    config: Path | None,
    *,
    prices: Path | None,
    tenant: str,
    since: datetime | None,
    until: datetime | None,
    dry_run: bool,
) -> None:
    """Price a tenant's model calls anew, and make its balances what its entries say.

    Raises:
        UsageError: the price list cannot be used. ConfigError, DatabaseUnavailable: as `export_all`.
    """
    listed = _prices(config, prices)

    async def work() -> tuple[Repriced, list[Drift]]:
        async with _database(config) as db:
            found = await reprice(db, tenant, prices=listed, since=_utc(since), until=_utc(until), dry_run=dry_run)
            return found, await rebuild(db, tenant, dry_run=dry_run)

    repriced, drifted = asyncio.run(work())
    would = "would be " if dry_run else ""
    say(f"Model calls: {repriced.entries}, without a price: {repriced.unpriced} (they stay as they are)")
    say(f"Corrections: {repriced.corrected}, in all {Decimal(repriced.nano_usd) / NANO:+f} $")
    for one in drifted:
        say(f"{one.scope} {one.owner or '-'} {one.window or '-'}: spent {would}{_amount(one)}")
    say(f"Balances that {would or 'were '}mended: {len(drifted)}")


def correct_one(config: Path | None, *, tenant: str, call: str, usd: float, reason: str) -> None:
    """Add to what one call cost.

    Raises:
        UsageError: the ledger has no such call, or the amount is none. ConfigError, DatabaseUnavailable: as above.
    """
    if not -1e9 < usd < 1e9:
        raise UsageError(f"{usd!r} is no amount of dollars")

    async def work() -> int:
        async with _database(config) as db:
            return await correct(db, tenant, call, nano_usd=rounded(Decimal(str(usd))), reason=reason)

    try:
        accounts = asyncio.run(work())
    except NotFound as error:
        raise UsageError(f"{error} of tenant {tenant}") from None
    say(f"Corrected; accounts that follow: {accounts}")


@asynccontextmanager
async def _database(config: Path | None) -> AsyncGenerator[Database]:
    uri = database_uri(settings_of(config))
    async with Database(uri, max_size=1, name="waystation-cli", prepare=False) as db:
        yield db


def _prices(config: Path | None, given: Path | None) -> Prices:
    if given is not None:
        try:
            return Prices.load(given)
        except ValueError as error:
            raise UsageError(str(error)) from None
    if config is None and not (Path.cwd() / CONFIG_NAME).is_file():
        return Prices()
    from waystation.catalog.keys_guards import prices_of

    _, project = configure(config, root=Path.cwd())
    return Prices() if project.guards is None else prices_of(project.guards, project.root)


def _utc(given: datetime | None) -> datetime | None:
    if given is None:
        return None
    return given.replace(tzinfo=UTC) if given.tzinfo is None else given.astimezone(UTC)


def _amount(one: Drift) -> str:
    sizes = {str(unit): size for unit, size in UNIT_SIZES.items()}
    return f"{Decimal(one.spent) / sizes[one.unit]:+f} {one.unit}"
