"""AES keys of the server's own: what opens, what does not, and that LangGraph's ciphertext is read."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from waystation_db.aes import AesCipher, eax_open
from waystation_db.cipher import MARK, Place, label_of_type, pack, unpack
from waystation_db.errors import Undecipherable

pytestmark = pytest.mark.anyio

K1, K2 = b"1" * 32, b"2" * 16
HERE, THERE = Place("thread", "values", ("default", "a")), Place("thread", "values", ("default", "b"))


async def test_what_is_sealed_opens_again_and_shows_nothing() -> None:
    cipher = AesCipher({"k1": K1})
    label, sealed = await cipher.seal(HERE, b"a secret")
    assert label == "aes-gcm:k1"
    assert b"secret" not in sealed
    assert await cipher.open(HERE, label, sealed) == b"a secret"


async def test_the_same_value_is_never_sealed_the_same_way_twice() -> None:
    cipher = AesCipher({"k1": K1})
    assert len({(await cipher.seal(HERE, b"x"))[1] for _ in range(100)}) == 100


async def test_a_value_does_not_open_in_another_place() -> None:
    cipher = AesCipher({"k1": K1})
    label, sealed = await cipher.seal(HERE, b"x")
    with pytest.raises(Undecipherable, match="'k1'"):
        await cipher.open(THERE, label, sealed)


@pytest.mark.parametrize("parts", [("ab", "c"), ("a", "bc"), ("abc", "")])
async def test_places_whose_parts_run_together_are_different(parts: tuple[str, str]) -> None:
    cipher = AesCipher({"k1": K1})
    label, sealed = await cipher.seal(Place("m", "f", ("abc",)), b"x")
    with pytest.raises(Undecipherable):
        await cipher.open(Place("m", "f", parts), label, sealed)


async def test_any_changed_byte_is_noticed() -> None:
    cipher = AesCipher({"k1": K1})
    label, sealed = await cipher.seal(HERE, b"a value")
    for place in range(len(sealed)):
        changed = sealed[:place] + bytes((sealed[place] ^ 1,)) + sealed[place + 1 :]
        with pytest.raises(Undecipherable):
            await cipher.open(HERE, label, changed)


@pytest.mark.parametrize("length", range(0, 45, 4))
async def test_what_is_cut_off_is_refused(length: int) -> None:
    cipher = AesCipher({"k1": K1})
    label, sealed = await cipher.seal(HERE, b"a value")
    with pytest.raises(Undecipherable):
        await cipher.open(HERE, label, sealed[:length])


async def test_the_first_key_seals_and_all_open() -> None:
    label, sealed = await AesCipher({"old": K2}).seal(HERE, b"x")
    rotated = AesCipher({"new": K1, "old": K2})
    assert await rotated.open(HERE, label, sealed) == b"x"
    assert (await rotated.seal(HERE, b"x"))[0] == "aes-gcm:new"
    assert not rotated.is_current(label)


async def test_a_key_that_is_not_here_is_named() -> None:
    label, sealed = await AesCipher({"old": K2}).seal(HERE, b"x")
    with pytest.raises(Undecipherable, match="the key 'old', which is not among this server's keys"):
        await AesCipher({"new": K1}).open(HERE, label, sealed)


async def test_another_key_of_the_same_name_opens_nothing() -> None:
    label, sealed = await AesCipher({"k": K2}).seal(HERE, b"x")
    with pytest.raises(Undecipherable, match="does not open with the key 'k'"):
        await AesCipher({"k": K1}).open(HERE, label, sealed)


@pytest.mark.parametrize("value", [{"a": [1, {"b": None}]}, [], "text", 0, True, 10**30, {"": "\u2028\U0001f600"}])
async def test_json_comes_back_as_it_was(value: Any) -> None:
    cipher = AesCipher({"k1": K1})
    sealed = await cipher.seal_json(HERE, value)
    assert set(sealed) == {MARK}
    assert await cipher.open_json(HERE, json.loads(json.dumps(sealed))) == value


async def test_plain_json_opens_to_itself_and_null_stays_null() -> None:
    cipher = AesCipher({"k1": K1})
    assert await cipher.open_json(HERE, {"plain": 1}) == {"plain": 1}
    assert await cipher.seal_json(HERE, None) is None


@pytest.mark.parametrize(
    "forged", [None, 1, {}, {"key": "aes-gcm:k1"}, {"key": "aes-gcm:k1", "data": "%"}, {"key": [], "data": {}}]
)
async def test_what_only_looks_sealed_is_refused(forged: Any) -> None:
    with pytest.raises(Undecipherable):
        await AesCipher({"k1": K1}).open_json(HERE, {MARK: forged})


async def test_chosen_members_are_sealed_and_the_others_can_be_searched() -> None:
    cipher = AesCipher({"k1": K1}, json_keys=["secret", "thread_id"])
    members = {"secret": "s", "thread_id": "t", "n": 1, "empty": None}
    sealed = await cipher.seal_members(HERE, members)
    assert {k: v for k, v in sealed.items() if k != "secret"} == {"thread_id": "t", "n": 1, "empty": None}
    assert MARK in sealed["secret"]
    assert await cipher.open_members(HERE, sealed) == members


async def test_members_cannot_be_exchanged() -> None:
    cipher = AesCipher({"k1": K1}, json_keys=["a", "b"])
    sealed = await cipher.seal_members(HERE, {"a": 1, "b": 2})
    with pytest.raises(Undecipherable):
        await cipher.open_members(HERE, {"a": sealed["b"], "b": sealed["a"]})


async def test_packed_bytes_say_that_they_are_sealed() -> None:
    cipher = AesCipher({"k1": K1})
    packed = await pack(cipher, HERE, b"[]")
    assert await unpack(cipher, HERE, packed) == b"[]"
    assert await unpack(cipher, HERE, b"[]") == b"[]"
    with pytest.raises(Undecipherable, match="no keys"):
        await unpack(None, HERE, packed)


async def test_without_keys_nothing_is_sealed_and_nothing_opens() -> None:
    label, sealed = await AesCipher({"k1": K1}).seal(HERE, b"x")
    closed = AesCipher({})
    assert await closed.seal(HERE, b"x") == ("", b"x")
    assert await closed.seal_json(HERE, {"a": 1}) == {"a": 1}
    with pytest.raises(Undecipherable):
        await closed.open(HERE, label, sealed)


@pytest.mark.parametrize("length", [16, 24, 32])
@pytest.mark.parametrize("value", [b"", "text", {"messages": ["a" * 1000]}])
async def test_what_langgraph_encrypted_is_read(length: int, value: Any) -> None:
    key = bytes(range(length))
    kind, sealed = EncryptedSerializer.from_pycryptodome_aes(key=key).dumps_typed(value)
    inner, label = label_of_type(kind) or ("", "")
    opened = await AesCipher({}, langgraph_key=key).open(HERE, label, sealed)
    assert label == "aes"
    assert JsonPlusSerializer().loads_typed((inner, opened)) == value


async def test_langgraphs_ciphertext_under_another_key_or_changed_is_refused() -> None:
    key = bytes(range(32))
    sealed = EncryptedSerializer.from_pycryptodome_aes(key=key).dumps_typed("text")[1]
    for data in (sealed[:20], sealed[:-1], b"", bytes((sealed[0] ^ 1,)) + sealed[1:]):
        assert eax_open(key, data) is None
    with pytest.raises(Undecipherable, match="does not open with LANGGRAPH_AES_KEY"):
        await AesCipher({}, langgraph_key=K1).open(HERE, "aes", sealed)
    with pytest.raises(Undecipherable, match="not set"):
        await AesCipher({"k1": K1}).open(HERE, "aes", sealed)


async def test_sealed_json_is_base64_of_salt_nonce_and_ciphertext() -> None:
    envelope = (await AesCipher({"k1": K1}).seal_json(HERE, "x"))[MARK]
    assert envelope["key"] == "aes-gcm:k1"
    assert len(base64.b64decode(envelope["data"])) == 16 + 12 + len('"x"') + 16
