"""What `waystation backup` and `waystation restore` do."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import closing
from math import isnan
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

from waystation import __version__
from waystation.auth.principal import is_tenant_id
from waystation.cli.backing_up_places import Place, place_of
from waystation.cli.failures import UsageError
from waystation.cli.migrating import settings_of
from waystation.cli.terminal import say
from waystation.process import database_uri
from waystation_db import backup_format, backup_reading, backup_restoring
from waystation_db.backup_format import Manifest
from waystation_db.backup_restoring import Existing, Options, Queued, Restored

T = TypeVar("T")


def create(config: Path | None, to: str, *, tenant: str | None, jobs: int, part_mb: float) -> None:
    """Back up into a place.

    Raises:
        UsageError: the place cannot be used, or holds a complete backup. CommandError: it fails.
        ConfigError, MigrationError, DatabaseUnavailable: as other commands.
    """
    _check_tenant(tenant)
    if isnan(part_mb):  # which Click's ranges let pass
        raise UsageError("--part-mb nan: expected a number")
    uri = database_uri(settings_of(config))
    began = monotonic()
    with closing(place_of(to, to_write=True)) as place:
        part_bytes = int(part_mb * (1 << 20))
        manifest, reused = asyncio.run(_create(uri, place, tenant=tenant, jobs=jobs, part_bytes=part_bytes))
    again = f", {reused} parts were there already" if reused else ""
    _note(f"Backed up {_amount(manifest)} in {monotonic() - began:.1f} s{again}.")
    _note(f"Digest {manifest.digest}")


async def _create(uri: str, place: Place, *, tenant: str | None, jobs: int, part_bytes: int) -> tuple[Manifest, int]:
    reused = 0
    async with backup_reading.open_source(uri, tenant=tenant) as source:
        if before := await asyncio.to_thread(place.open_for_writing):
            _note(f"Going on: {before} parts are there.")

        async def put(name: str, data: bytes) -> None:
            nonlocal reused
            reused += not await place.aput(name, data)

        manifest = await backup_reading.read_all(source, put, version=__version__, jobs=jobs, part_bytes=part_bytes)
    await asyncio.to_thread(place.finish, backup_format.write(manifest))
    return manifest, reused


def verify(source: str, *, digest: str | None) -> None:
    """Read all of a backup and check it.

    Raises:
        BackupRefused: it is damaged or not complete, or another than `digest` says.
    """
    with closing(place_of(source, to_write=False)) as place:
        manifest = _manifest(place, digest)
        for part in manifest.parts:
            backup_format.unpack(part, place.read(part))
    say(f"whole  {source}  {_amount(manifest)}")
    whose = "all tenants" if manifest.tenant is None else f"tenant {manifest.tenant}"
    say(
        f"       {whose}, as of {manifest.created_at}, by waystation {manifest.version} on Postgres {manifest.postgres}"
    )
    say(f"       keys needed: {', '.join(manifest.encryption_keys) or 'none'}")
    say(f"       digest {manifest.digest}")
    for name, count in manifest.rows.items():
        if count:
            say(f"       {count:>10}  {name}")


def restore(
    config: Path | None,
    source: str,
    *,
    existing: Existing,
    queued: Queued,
    tenant: str | None,
    digest: str | None,
    jobs: int,
) -> None:
    """Restore a backup.

    Raises:
        BackupRefused: it is damaged, or cannot be restored here. Others as `create`.
    """
    _check_tenant(tenant)
    uri = database_uri(settings_of(config))
    options = Options(existing=existing, queued=queued, tenant=tenant)
    began = monotonic()
    with closing(place_of(source, to_write=False)) as place:
        manifest = _manifest(place, digest)
        _note(f"Restoring {_amount(manifest)} as of {manifest.created_at}.")
        done = asyncio.run(backup_restoring.restore(uri, manifest, place.aread, options=options, jobs=jobs))
    _tell(manifest, done, is_paused=queued == "paused")
    _note(f"Done in {monotonic() - began:.1f} s.")


def _tell(manifest: Manifest, done: Restored, *, is_paused: bool) -> None:
    if done.parts_before:
        _note(f"Went on: {done.parts_before} of {len(manifest.parts)} parts were in already.")
    for name, count in done.kept.items():
        _note(f"Left out {count} rows of {name}: they are here already.")
    if done.to_reindex:
        _note(f"{done.to_reindex} items have vectors of another embedding: run `waystation reindex --continue`.")
    _note(f"Restored {sum(done.rows.values())} rows.")
    if manifest.encryption_keys:
        _note(f"Its values need the keys {', '.join(manifest.encryption_keys)}: the backup does not hold them.")
    if is_paused:
        _note("Waiting runs, crons and webhooks are paused. `waystation restore --release` lets them go on.")


def release(config: Path | None) -> None:
    """Let paused runs, crons and webhooks go on."""
    runs, crons, webhooks = _run(backup_restoring.release(database_uri(settings_of(config))))
    say(f"Go on: {runs} runs, {crons} crons, {webhooks} webhooks.")


def abandon(config: Path | None) -> None:
    """Throw away what an interrupted restore left."""
    there = _run(backup_restoring.abandon(database_uri(settings_of(config))))
    say("It is thrown away." if there else "There was nothing.")


def _run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def _manifest(place: Place, digest: str | None) -> Manifest:
    manifest = backup_format.read(place.read_manifest())
    if digest is not None and digest != manifest.digest:
        raise UsageError(f"{place.name} is another backup: its digest is {manifest.digest}")
    return manifest


def _check_tenant(tenant: str | None) -> None:
    if tenant is not None and not is_tenant_id(tenant):
        raise UsageError(f"--tenant {tenant!r}: expected letters, digits and . _ : @ | + = ~ - (at most 128)")


def _amount(manifest: Manifest) -> str:
    rows = manifest.rows
    size = manifest.stored_bytes / 1e6
    return f"{rows.get('thread', 0)} threads, {sum(rows.values())} rows, {len(manifest.parts)} parts, {size:.1f} MB"


def _note(text: str) -> None:
    """Standard output may be the backup."""
    say(text, err=True)
