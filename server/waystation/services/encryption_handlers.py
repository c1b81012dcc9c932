"""The project's `langgraph_sdk.Encryption` object as a cipher: its handlers, run where user code runs.

    seal ─▶ graph loop: encrypt.blob / encrypt.json (ctx, value) ─▶ stored with ctx.metadata beside it, in the clear
    open ─▶ graph loop: decrypt.blob / decrypt.json (ctx as it was stored, value)

Handlers are given what the SDK says: JSON objects keep their members, and what only the server needs is not shown to
them. What they leave to the keys of the environment (no handler, or a value that such a key sealed) goes there.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextvars import ContextVar
from typing import Any, cast

import orjson
from langgraph_sdk.encryption import Encryption
from langgraph_sdk.encryption.types import DecryptResult, EncryptionContext

from waystation.errors import ConfigError, InvalidRequest
from waystation_db.aes import SYSTEM_MEMBERS, AesCipher
from waystation_db.cipher import MARK, Cipher, Place, check_members, is_sealed
from waystation_db.errors import SealingFailed, Undecipherable

DEADLINE_S = 30.0
"""How long a handler may take."""

LABEL = "handlers"
_MAX_CONTEXT_CHARS = 8192
_CONTEXT, _WRAPPED, _MEMBER = "context", "value", "member"

encryption_context: ContextVar[Mapping[str, Any] | None] = ContextVar("encryption_context", default=None)
"""What the handlers get as `ctx.metadata`: of the request that is answered, or of the run that is executed."""

log = logging.getLogger(__name__)


class HandlersCipher:
    """A `Cipher` of handlers; `keys` do what they leave. Call `on_loop` on the loop of user code before the first
    use."""

    def __init__(self, encryption: Encryption, keys: AesCipher) -> None:
        """Raises ConfigError when something could be encrypted and not decrypted."""
        # The SDK has no public way to the handlers of blobs and of contexts.
        self._encrypt_blob = encryption._blob_encryptor  # pyright: ignore[reportPrivateUsage]
        self._decrypt_blob = encryption._blob_decryptor  # pyright: ignore[reportPrivateUsage]
        self._context = encryption._context_handler  # pyright: ignore[reportPrivateUsage]
        self._encrypt_json = encryption.get_json_encryptor()
        self._decrypt_json = encryption.get_json_decryptor()
        self._keys = keys
        self._loop: asyncio.AbstractEventLoop | None = None
        if not (self._encrypt_blob or self._encrypt_json):
            raise ConfigError("encryption.path names an object without handlers: expected encrypt.blob or encrypt.json")
        for kind, encrypt, decrypt in (
            ("blob", self._encrypt_blob, self._decrypt_blob),
            ("json", self._encrypt_json, self._decrypt_json),
        ):
            if encrypt and not decrypt:
                raise ConfigError(
                    f"encryption.path has encrypt.{kind} without decrypt.{kind}: nothing could be read again"
                )

    def on_loop(self) -> None:
        """Handlers run on the loop that runs now."""
        self._loop = asyncio.get_running_loop()

    @property
    def leaves(self) -> list[str]:
        """The kinds of values that neither a handler nor a key encrypts."""
        if self._keys.key_id is not None:
            return []
        kinds = (("blobs", self._encrypt_blob), ("JSON", self._encrypt_json))
        return [kind for kind, handler in kinds if handler is None]

    @property
    def has_context_handler(self) -> bool:
        """Whether the project derives the context from who calls."""
        return self._context is not None

    async def context_of(self, user: Any, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """The context of a request: what the client sent, or what the project's handler makes of it and of the user.

        Raises:
            SealingFailed: the handler failed, or returned no object.
        """
        handler = self._context
        if handler is None:
            return given
        made = await self._ask("context", lambda: handler(user, EncryptionContext(metadata=dict(given))))
        if not isinstance(made, dict):
            raise SealingFailed("the project's encryption handler context returned no object")
        return cast("dict[str, Any]", made)

    def adopt(self, sealed: Any) -> None:
        """See `Cipher`: the context is that of the value."""
        if is_sealed(sealed) and (context := _context_in(sealed)) is not None:
            encryption_context.set(context)

    def adopt_blob(self, label: str, data: bytes) -> None:
        """See `Cipher`: the context is that of the value."""
        if label == LABEL:
            encryption_context.set(_head_of(bytes(data))[0])

    @property
    def seals(self) -> bool:
        """See `Cipher`."""
        return True

    def hides(self, names: Collection[str] = ()) -> list[str]:
        """See `Cipher`. What a handler encrypts is its own business: what cannot be searched for is not found."""
        return [] if self._encrypt_json else self._keys.hides(names)

    def is_current(self, label: str) -> bool:
        """See `Cipher`."""
        return label == LABEL or self._keys.is_current(label)

    async def seal(self, place: Place, data: bytes) -> tuple[str, bytes]:
        """See `Cipher`. The context goes before the ciphertext."""
        handler = self._encrypt_blob
        if handler is None:
            return await self._keys.seal(place, data)
        metadata = dict(encryption_context.get() or {})
        context = _context(place, metadata)
        sealed = await self._ask("encrypt.blob", lambda: handler(context, data))
        if not isinstance(sealed, bytes | bytearray | memoryview):
            raise SealingFailed("the project's encryption handler encrypt.blob returned no bytes")
        head = orjson.dumps(metadata)
        return LABEL, b"".join((len(head).to_bytes(4, "big"), head, bytes(cast("bytes", sealed))))

    async def open(self, place: Place, label: str, data: bytes) -> bytes:
        """See `Cipher`."""
        if label != LABEL:
            return await self._keys.open(place, label, data)
        handler = self._decrypt_blob
        if handler is None:
            raise Undecipherable(f"{place.model} {place.field} was encrypted by a handler that is gone", label=LABEL)
        metadata, sealed = _head_of(bytes(data))
        context = _context(place, metadata)
        opened = _plaintext(await self._ask("decrypt.blob", lambda: handler(context, sealed), opening=place))
        if not isinstance(opened, bytes | bytearray | memoryview):
            raise Undecipherable("the project's encryption handler decrypt.blob returned no bytes", label=LABEL)
        return bytes(cast("bytes", opened))

    async def seal_json(self, place: Place, value: Any) -> Any:
        """See `Cipher`. An object keeps its members, as the SDK promises the handlers; anything else is one member."""
        if self._encrypt_json is None:
            return await self._keys.seal_json(place, value)
        if value is None:
            return None
        if isinstance(value, dict):
            return await self._sealed(place, cast("dict[str, Any]", value), wrapped=False)
        return await self._sealed(place, {_WRAPPED: value}, wrapped=True)

    async def open_json(self, place: Place, value: Any) -> Any:
        """See `Cipher`."""
        if not is_sealed(value):
            return value
        if _context_in(value) is None:
            return await self._keys.open_json(place, value)
        opened = await self._opened(place, cast("dict[str, Any]", value))
        return opened.get(_WRAPPED) if value[MARK].get("wrapped") else opened

    async def seal_members(
        self, place: Place, members: Mapping[str, Any], *, private: Collection[str] = ()
    ) -> dict[str, Any]:
        """See `Cipher`. The handler chooses among all members but those that the server must read."""
        if self._encrypt_json is None:
            return await self._keys.seal_members(place, members, private=private)
        check_members(place, members)
        shown = {name: value for name, value in members.items() if name not in SYSTEM_MEMBERS and name != MARK}
        if not shown:
            return dict(members)
        sealed = await self._sealed(place, shown, wrapped=False)
        return {**members, **sealed}

    async def seal_each(
        self, place: Place, members: Mapping[str, Any], *, private: Collection[str] = ()
    ) -> dict[str, Any]:
        """See `Cipher`. What the handler leaves as it is, is plain."""
        if self._encrypt_json is None:
            return await self._keys.seal_each(place, members, private=private)
        sealed = await self.seal_members(place, members)
        if not is_sealed(sealed):
            return sealed
        context = _context_in(sealed)
        return {
            name: value if sealed[name] == value else {MARK: {_CONTEXT: context, _MEMBER: sealed[name]}}
            for name, value in members.items()
        }

    async def open_members(self, place: Place, members: Mapping[str, Any]) -> dict[str, Any]:
        """See `Cipher`."""
        apart = {name: value for name, value in members.items() if _is_apart(value)}
        if apart:
            rest = await self.open_members(place, {name: members[name] for name in members.keys() - apart.keys()})
            found = rest | await self._opened_apart(place, apart)
            return {name: found[name] for name in members if name in found}
        if is_sealed(members) and _context_in(members) is not None:
            system = {name: value for name, value in members.items() if name in SYSTEM_MEMBERS}
            others = {name: value for name, value in members.items() if name not in SYSTEM_MEMBERS}
            opened = await self._opened(place, others)
            members = {name: system.get(name, opened.get(name)) for name in members if name != MARK}
        return await self._keys.open_members(place, members)

    # -- handlers ----------------------------------------------------------------------------------------------------

    async def _sealed(self, place: Place, value: dict[str, Any], *, wrapped: bool) -> dict[str, Any]:
        handler = self._encrypt_json
        assert handler is not None
        if MARK in value:
            raise SealingFailed(f"{place.field}: the member {MARK} cannot be stored with encryption on")
        metadata = dict(encryption_context.get() or {})
        context = _context(place, metadata)
        sealed = await self._ask("encrypt.json", lambda: handler(context, value))
        if not isinstance(sealed, dict) or sealed.keys() != value.keys():
            raise SealingFailed("the project's encryption handler encrypt.json has to keep the members of its object")
        mark: dict[str, Any] = {_CONTEXT: metadata, **({"wrapped": True} if wrapped else {})}
        return {**sealed, MARK: mark}

    async def _opened(self, place: Place, value: dict[str, Any]) -> dict[str, Any]:
        handler = self._decrypt_json
        if handler is None:
            raise Undecipherable(f"{place.model} {place.field} was encrypted by a handler that is gone", label=LABEL)
        context = _context(place, dict(_context_in(value) or {}))
        rest = {name: member for name, member in value.items() if name != MARK}
        opened = _plaintext(await self._ask("decrypt.json", lambda: handler(context, rest), opening=place))
        if not isinstance(opened, dict):
            raise Undecipherable("the project's encryption handler decrypt.json returned no object", label=LABEL)
        return cast("dict[str, Any]", opened)

    async def _opened_apart(self, place: Place, apart: Mapping[str, Any]) -> dict[str, Any]:
        """Members of `seal_each`, opened: those of a context together."""
        by_context = dict[bytes, dict[str, Any]]()
        for name, value in apart.items():
            context = orjson.dumps(_context_in(value), option=orjson.OPT_SORT_KEYS)
            by_context.setdefault(context, {MARK: value[MARK]})[name] = value[MARK][_MEMBER]
        opened = [await self._opened(place, members) for members in by_context.values()]
        return {name: value for members in opened for name, value in members.items() if name in apart}

    async def _ask(self, name: str, work: Callable[[], Awaitable[Any]], *, opening: Place | None = None) -> Any:
        """Run a handler on its loop. What it raises is logged, and told without its text."""

        async def there() -> Any:
            async with asyncio.timeout(DEADLINE_S):
                return await work()

        try:
            if self._loop is None or asyncio.get_running_loop() is self._loop:
                return await there()
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(there(), self._loop))
        except Exception as error:  # the project's code may raise anything; whoever asked gets one of our errors
            log.warning("an encryption handler failed", extra={"handler": name}, exc_info=True)
            told = f"the project's encryption handler {name} failed with {type(error).__name__}"
            if opening is None:
                raise SealingFailed(told) from error
            raise Undecipherable(f"{opening.model} {opening.field}: {told}", label=LABEL) from error


async def enter_context(cipher: Cipher | None, header: str | None, user: Any) -> None:
    """Let what the current request stores be sealed in the context that it comes with. Nothing without handlers.

    Raises:
        InvalidRequest: the header X-Encryption-Context is not base64 of a JSON object.
        SealingFailed: the project's context handler failed.
    """
    if isinstance(cipher, HandlersCipher):
        given = {} if header is None else _context_from(header)
        encryption_context.set(await cipher.context_of(user, given))


def _context_from(header: str) -> dict[str, Any]:
    try:
        given: object = orjson.loads(base64.b64decode(header, validate=True))
    except ValueError:
        given = None
    if not isinstance(given, dict) or len(header) > _MAX_CONTEXT_CHARS:
        raise InvalidRequest(
            f"X-Encryption-Context: expected a JSON object in base64, of at most {_MAX_CONTEXT_CHARS} characters"
        )
    return cast("dict[str, Any]", given)


def _head_of(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The context before a ciphertext, and the ciphertext."""
    end = 4 + int.from_bytes(data[:4], "big")
    try:
        return cast("dict[str, Any]", orjson.loads(data[4:end])), data[end:]
    except ValueError:
        raise Undecipherable("a value sealed by a handler is damaged", label=LABEL) from None


def _context(place: Place, metadata: dict[str, Any]) -> EncryptionContext:
    return EncryptionContext(model=place.model, field=place.field, metadata=metadata)


def _context_in(value: Any) -> Mapping[str, Any] | None:
    """The context in a sealed value's mark; None for one that a key sealed."""
    mark: Any = value[MARK]
    context: Any = cast("dict[str, Any]", mark).get(_CONTEXT) if isinstance(mark, dict) else None
    return cast("dict[str, Any]", context) if isinstance(context, dict) else None


def _is_apart(value: Any) -> bool:
    """Whether a member tells by itself that a handler sealed it."""
    return is_sealed(value) and _context_in(value) is not None and _MEMBER in value[MARK]


def _plaintext(result: Any) -> Any:
    """What a decrypt handler says. The replacement that it may offer is not stored while reading: `waystation encrypt
    --again` has everything encrypted anew."""
    return cast("Any", result).plaintext if isinstance(result, DecryptResult) else result
