"""Encryption by keys of the server's own: AES-256-GCM, each value bound to its place.

    key ─HKDF(salt)─▶ subkey ─AES-GCM(nonce, place)─▶ salt | nonce | ciphertext | tag         label aes-gcm:<key id>

Random nonces are safe for some 2^32 values under one key, which a busy server writes in weeks. So each process draws a
salt, and another one after 2^20 values: each salt gives a key of its own, and none of them is used up.

Values that LangGraph's own EncryptedSerializer wrote (AES-EAX, label `aes`) are read and never written.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import Any, cast

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher as BlockCipher
from cryptography.hazmat.primitives.ciphers import algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.cmac import CMAC
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from waystation_db.cipher import MARK, Place, check_members, loads
from waystation_db.errors import Undecipherable
from waystation_db.json import dumps

_GCM = "aes-gcm:"
_LANGGRAPH = "aes"
_SALT, _NONCE, _TAG = 16, 12, 16
_VALUES_PER_SALT = 2**20
_KNOWN_SUBKEYS = 512
_INFO = b"waystation aes-gcm v1"

SYSTEM_MEMBERS = frozenset(
    {
        *("run_id", "thread_id", "graph_id", "assistant_id", "checkpoint_id", "task_id", "user_id", "cron_id"),
        *("source", "step", "parents", "run_attempt", "checkpoint_ns", "created_by"),
        *("a2a_task_id", "a2a_message_id"),
        *("langgraph_version", "langgraph_api_version", "langgraph_plan", "langgraph_host", "langgraph_api_url"),
        *("langgraph_request_id", "langgraph_auth_user_id", "langgraph_auth_permissions"),
        *("counters_since_delta_snapshot", "delta_writes_versioned"),
    }
)
"""Members of metadata that the server or LangGraph must be able to read in SQL; they are never encrypted."""


class AesCipher:
    """A `Cipher` over a ring of keys: the first one seals, all of them open. Safe between threads.

    Without keys it opens nothing and seals nothing: what a server has that was started without the keys of its
    database.
    """

    def __init__(
        self,
        keys: Mapping[str, bytes],
        *,
        langgraph_key: bytes | None = None,
        json_keys: Collection[str] = (),
    ) -> None:
        """`keys` are by id, each of 16, 24 or 32 bytes. `langgraph_key` opens what LangGraph wrote. `json_keys` are the
        members of metadata that are sealed too."""
        self._keys = dict(keys)
        self._langgraph_key = langgraph_key
        self._chosen = frozenset(json_keys) - SYSTEM_MEMBERS
        self.key_id = next(iter(self._keys), None)
        """The key that seals."""
        self._label = f"{_GCM}{self.key_id}"
        self._subkeys: OrderedDict[tuple[str, bytes], AESGCM] = OrderedDict()
        self._sealing: tuple[bytes, AESGCM] | None = None
        self._left = 0
        os.register_at_fork(after_in_child=self._forget_salt)

    def adopt(self, sealed: Any) -> None:
        """See `Cipher`. There is no choice."""

    def adopt_blob(self, label: str, data: bytes) -> None:
        """See `Cipher`. There is no choice."""

    @property
    def seals(self) -> bool:
        """See `Cipher`."""
        return self.key_id is not None

    def hides(self, names: Collection[str] = ()) -> list[str]:
        """See `Cipher`."""
        return [name for name in names if name in self._chosen] if self.seals else []

    def is_current(self, label: str) -> bool:
        """See `Cipher`."""
        return label == self._label

    async def seal(self, place: Place, data: bytes) -> tuple[str, bytes]:
        """See `Cipher`. Does not wait."""
        return (self._label, self._seal(place, data)) if self.key_id is not None else ("", data)

    async def open(self, place: Place, label: str, data: bytes) -> bytes:
        """See `Cipher`. Does not wait."""
        return self._open(place, label, data)

    async def seal_json(self, place: Place, value: Any) -> Any:
        """See `Cipher`."""
        return None if value is None else self._envelope(place, value)

    async def open_json(self, place: Place, value: Any) -> Any:
        """See `Cipher`."""
        if not isinstance(value, dict) or MARK not in value:
            return cast("Any", value)
        return self._opened(place, cast("dict[str, Any]", value))

    async def seal_members(
        self, place: Place, members: Mapping[str, Any], *, private: Collection[str] = ()
    ) -> dict[str, Any]:
        """See `Cipher`. Each sealed member is one by itself, as SQL merges them."""
        check_members(place, members)
        wanted = self._chosen.union(private) - SYSTEM_MEMBERS
        return {
            name: value if name not in wanted or value is None else self._envelope(_member(place, name), value)
            for name, value in members.items()
        }

    async def seal_each(
        self, place: Place, members: Mapping[str, Any], *, private: Collection[str] = ()
    ) -> dict[str, Any]:
        """See `Cipher`."""
        return await self.seal_members(place, members, private=private)

    async def open_members(self, place: Place, members: Mapping[str, Any]) -> dict[str, Any]:
        """See `Cipher`."""
        return {
            name: self._opened(_member(place, name), cast("dict[str, Any]", value))
            if isinstance(value, dict) and MARK in value
            else value
            for name, value in members.items()
        }

    # -- one value ---------------------------------------------------------------------------------------------------

    def _envelope(self, place: Place, value: Any) -> Any:
        if self.key_id is None:
            return value
        sealed = base64.b64encode(self._seal(place, dumps(value))).decode()
        return {MARK: {"key": self._label, "data": sealed}}

    def _opened(self, place: Place, value: dict[str, Any]) -> Any:
        envelope = value[MARK]
        try:
            label, sealed = str(envelope["key"]), base64.b64decode(envelope["data"], validate=True)
        except (KeyError, TypeError, ValueError, binascii.Error):
            raise Undecipherable(f"{_name(place)} is not of the form of an encrypted value") from None
        return loads(self._open(place, label, sealed))

    def _seal(self, place: Place, data: bytes) -> bytes:
        assert self.key_id is not None  # whoever calls this has looked
        sealing = self._sealing
        if self._left <= 0 or sealing is None:
            salt = os.urandom(_SALT)
            sealing = self._sealing = (salt, _subkey(self._keys[self.key_id], salt))
            self._left = _VALUES_PER_SALT
        self._left -= 1
        salt, key = sealing
        nonce = os.urandom(_NONCE)
        return b"".join((salt, nonce, key.encrypt(nonce, data, _binding(place))))

    def _open(self, place: Place, label: str, data: bytes) -> bytes:
        if label == _LANGGRAPH:
            return self._open_langgraph(place, data)
        key_id = label.removeprefix(_GCM)
        if not label.startswith(_GCM) or key_id not in self._keys:
            raise Undecipherable(
                f"{_name(place)} is encrypted with the key {key_id!r}, which is not among this server's keys",
                label=label,
            )
        data = bytes(data)
        salt, nonce = data[:_SALT], data[_SALT : _SALT + _NONCE]
        try:
            return self._subkey_of(key_id, salt).decrypt(nonce, data[_SALT + _NONCE :], _binding(place))
        except (InvalidTag, ValueError):
            raise Undecipherable(
                f"{_name(place)} does not open with the key {key_id!r}: that is another key, or the value was changed "
                "or moved",
                label=label,
            ) from None

    def _open_langgraph(self, place: Place, data: bytes) -> bytes:
        if self._langgraph_key is None:
            raise Undecipherable(
                f"{_name(place)} was encrypted by LangGraph with LANGGRAPH_AES_KEY, which is not set", label=_LANGGRAPH
            )
        opened = eax_open(self._langgraph_key, bytes(data))
        if opened is None:
            raise Undecipherable(f"{_name(place)} does not open with LANGGRAPH_AES_KEY", label=_LANGGRAPH)
        return opened

    def _subkey_of(self, key_id: str, salt: bytes) -> AESGCM:
        name = (key_id, salt)
        found = self._subkeys.get(name)
        if found is None:
            found = self._subkeys[name] = _subkey(self._keys[key_id], salt)
            while len(self._subkeys) > _KNOWN_SUBKEYS:
                self._subkeys.popitem(last=False)
        return found

    def _forget_salt(self) -> None:
        self._left = 0


def eax_open(key: bytes, data: bytes) -> bytes | None:
    """The plaintext of `nonce (16) | tag (16) | ciphertext` by AES-EAX without associated data; None when it does not
    verify. The definition is that of Bellare, Rogaway and Wagner (2004)."""
    nonce, tag, ciphertext = data[:16], data[16:32], data[32:]
    counter = _omac(key, 0, nonce)
    expected = _xor(_xor(counter, _omac(key, 1, b"")), _omac(key, 2, ciphertext))
    if len(tag) != _TAG or not hmac.compare_digest(tag, expected):
        return None
    decryptor = BlockCipher(algorithms.AES(key), modes.CTR(counter)).decryptor()
    return decryptor.update(ciphertext) + decryptor.finalize()


def _omac(key: bytes, tweak: int, data: bytes) -> bytes:
    mac = CMAC(algorithms.AES(key))
    mac.update(bytes(15) + bytes((tweak,)))
    mac.update(data)
    return mac.finalize()


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def _subkey(key: bytes, salt: bytes) -> AESGCM:
    return AESGCM(HKDF(SHA256(), 32, salt, _INFO).derive(key))


def _binding(place: Place) -> bytes:
    """The place as bytes, such that no two places have the same."""
    parts = [part.encode("utf-8", "surrogatepass") for part in (place.model, place.field, *place.owner)]
    return b"".join([len(part).to_bytes(4, "big") + part for part in parts])


def _member(place: Place, name: str) -> Place:
    return Place(place.model, place.field, (*place.owner, name))


def _name(place: Place) -> str:
    return f"{place.model} {place.field}"
