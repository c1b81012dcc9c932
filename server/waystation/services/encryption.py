"""The cipher of a process: keys of the environment, handlers of the project, or none.

    LANGGRAPH_AES_KEY, WAYSTATION_ENCRYPTION_KEYS ──▶ AesCipher ──┐
    langgraph.json: encryption.path ────────────────────────────▶ HandlersCipher, which leaves the rest to the keys

Whatever key seals is noted in the database. A server that is started without any, on a database that needs one, gets a
cipher that seals nothing and says of every sealed value which key it lacks.
"""

from __future__ import annotations

import logging
import warnings
from concurrent.futures import ThreadPoolExecutor

from langgraph_sdk.encryption import Encryption, LangGraphBetaWarning

from waystation.catalog import Project
from waystation.catalog.factories import in_thread
from waystation.catalog.importing import Importer
from waystation.catalog.spec import parse_spec
from waystation.config import Settings
from waystation.errors import ConfigError
from waystation.services.encryption_handlers import LABEL, HandlersCipher
from waystation_db import resealing
from waystation_db.aes import AesCipher
from waystation_db.cipher import Cipher
from waystation_db.pool import Database

LANGGRAPH_KEY_ID = "langgraph"
"""The id of the key in LANGGRAPH_AES_KEY."""

log = logging.getLogger(__name__)


def key_ring(settings: Settings) -> AesCipher:
    """The keys of the environment, as one cipher; it may have none."""
    keys = dict(settings.encryption_keys or {})
    own = settings.langgraph_aes_key
    if own is not None:
        keys.setdefault(LANGGRAPH_KEY_ID, own.encode())
    return AesCipher(
        keys, langgraph_key=None if own is None else own.encode(), json_keys=settings.langgraph_aes_json_keys
    )


async def open_cipher(settings: Settings, project: Project | None, db: Database) -> Cipher | None:
    """The cipher of this process; None when nothing is, or ever was, encrypted. Imports the project's handlers.

    Raises:
        ConfigError: the handlers cannot be loaded, or do not fit together.
        waystation_db.errors.DatabaseUnavailable: Postgres does not answer.
    """
    keys = key_ring(settings)
    cipher: AesCipher | HandlersCipher = keys
    if project is not None and project.encryption is not None:
        encryption = await _handlers(project, project.encryption.path)
        cipher = HandlersCipher(encryption, keys)
        if left := cipher.leaves:
            log.warning("encryption.path has no handlers for some values, which stay plain", extra={"values": left})
    async with db.connection() as conn:
        if cipher.seals:
            await resealing.remember_key(conn, key_in_use(cipher))
            return cipher
        known = await resealing.known_keys(conn)
    if not known and settings.langgraph_aes_key is None:
        return None
    log.warning("this database has encrypted values, and this server has no keys to read them", extra={"keys": known})
    return cipher


def key_in_use(cipher: Cipher) -> str:
    """The id under which it is noted what a cipher seals with."""
    return cipher.key_id or "" if isinstance(cipher, AesCipher) else LABEL


def on_this_loop(cipher: Cipher | None) -> Cipher | None:
    """The same cipher; the project's handlers run on this loop from now on."""
    if isinstance(cipher, HandlersCipher):
        cipher.on_loop()
    return cipher


async def _handlers(project: Project, path: str) -> Encryption:
    with ThreadPoolExecutor(1, thread_name_prefix="waystation-import") as executor:
        return await in_thread(executor, lambda: _load(project, path))


def _load(project: Project, path: str) -> Encryption:
    importer = Importer(project.root, project.folders)
    importer.extend_path()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LangGraphBetaWarning)
        found = importer.load(parse_spec("encryption.path", path, root=project.root), what="encryption.path")
    if not isinstance(found, Encryption):
        raise ConfigError(
            f"encryption.path is {path!r}: expected a langgraph_sdk.Encryption object, found a {type(found).__name__}"
        )
    return found
