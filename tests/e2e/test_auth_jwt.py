"""Tokens of an identity provider, which is a small JWKS server of this test's own."""

from __future__ import annotations

import base64
import hmac
import json
import threading
import time
from collections.abc import Callable, Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from e2e.authorized import http_as
from eventually import eventually
from live_server import live_server_on
from waystation.auth import signing_keys
from waystation.config import Settings

pytestmark = pytest.mark.anyio

ISSUER, AUDIENCE = "https://issuer.example", "waystation"
SECRET = "a shared secret of thirty-two bytes or more"


class Provider:
    """Signs tokens and shows its keys. `keys` maps ids to private keys; what is there is shown."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {"one": rsa.generate_private_key(public_exponent=65537, key_size=2048)}
        self.asked = 0
        self.status = 200
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked += 1
                body = json.dumps(provider.jwks()).encode()
                self.send_response(provider.status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/jwks.json"

    def jwks(self) -> dict[str, Any]:
        shown: list[dict[str, Any]] = []
        for kid, key in self.keys.items():
            is_rsa = isinstance(key, rsa.RSAPrivateKey)
            made = (RSAAlgorithm if is_rsa else ECAlgorithm).to_jwk(key.public_key())
            shown.append({**json.loads(made), "kid": kid, "use": "sig"})
        oct_key = base64.urlsafe_b64encode(b"x" * 32).decode().rstrip("=")
        return {"keys": [*shown, {"kty": "oct", "k": oct_key, "kid": "shared"}]}

    def token(self, *, kid: str | None = "one", key: Any = None, alg: str = "RS256", **claims: Any) -> str:
        now = int(time.time())
        body = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": now + 300, "groups": ["writers"], **claims}
        body = {name: value for name, value in body.items() if value is not None}
        signing = key if key is not None else self.keys[kid or "one"]
        return jwt.encode(body, signing, algorithm=alg, headers={"kid": kid} if kid else {})

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture(scope="module")
def provider() -> Generator[Provider]:
    made = Provider()
    yield made
    made.close()


def rules(jwks: str, **changed: Any) -> dict[str, Any]:
    return {
        "jwt": {
            "issuer": ISSUER,
            "audience": [AUDIENCE, "other"],
            "jwks": jwks,
            "algorithms": ["RS256", "ES256"],
            "leeway_s": 1,
            "claims": {"tenant": "org.id", "roles": "groups", "permissions": "scope"},
            "roles": {"writers": "service", "bosses": "admin", "people": "user"},
            **changed,
        }
    }


@pytest.fixture(scope="module")
def url(make_database: Callable[[], str], provider: Provider) -> Generator[str]:
    with live_server_on(make_database(), settings=Settings(auth=rules(provider.url))) as server:
        yield server.url


def signed_with(secret: bytes, token: str) -> str:
    """The token again, as if a public key had been a shared one. The library does not let one make such."""
    body = token.split(".")[1]
    head = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT","kid":"one"}').rstrip(b"=").decode()
    signature = hmac.new(secret, f"{head}.{body}".encode(), "sha256").digest()
    return f"{head}.{body}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


async def answer(url: str, token: str) -> httpx.Response:
    async with http_as(url, token) as http:
        return await http.post("/threads", json={})


async def test_a_good_token_opens_and_its_claims_say_for_whom(url: str, provider: Provider) -> None:
    token = provider.token(org={"id": "acme"}, scope="mail calendar role:admin", name="Ann")
    async with http_as(url, token) as http:
        body: dict[str, Any] = {"assistant_id": "echo", "input": {}}
        run = (await http.post("/runs", json={**body, "on_completion": "keep", "after_seconds": 1000})).json()
        user = run["kwargs"]["config"]["configurable"]["langgraph_auth_user"]
        assert (user["identity"], user["name"], user["tenant_id"]) == ("ann", "Ann", "acme")
        assert user["permissions"] == ["role:service", "mail", "calendar"]
        assert (await http.post("/assistants", json={"graph_id": "echo"})).status_code == 403  # a service is no admin
    boss = provider.token(org={"id": "acme"}, groups=["unknown", "bosses"])
    async with http_as(url, boss) as http:
        assert (await http.post("/assistants", json={"graph_id": "echo"})).status_code == 200


async def test_tokens_that_are_not_good_open_nothing(url: str, provider: Provider) -> None:
    acme: dict[str, Any] = {"org": {"id": "acme"}}
    good = provider.token(**acme)
    assert (await answer(url, good)).status_code == 200
    other_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = provider.jwks()["keys"][0]
    unsigned = jwt.encode({"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": time.time() + 99, **acme}, "", "none")
    head, body, signature = good.split(".")
    with_public_key = signed_with(json.dumps(public).encode(), provider.token(kid="one", **acme))
    bad = {
        "expired": provider.token(exp=int(time.time()) - 10, **acme),
        "not yet": provider.token(nbf=int(time.time()) + 100, **acme),
        "another issuer": provider.token(iss="https://evil.example", **acme),
        "another audience": provider.token(aud="somebody else", **acme),
        "no audience": provider.token(aud=None, **acme),
        "no end": provider.token(exp=None, **acme),
        "nobody": provider.token(sub=None, **acme),
        "another key": provider.token(key=other_key, **acme),
        "an unknown key": provider.token(kid="nowhere", key=other_key, **acme),
        "unsigned": unsigned,
        "signed with the public key": with_public_key,
        "signed with a shared key": provider.token(kid="shared", key="x" * 32, alg="HS256", **acme),
        "an algorithm not allowed": provider.token(alg="RS512", **acme),
        "no signature": f"{head}.{body}.",
        "another body": f"{head}.{body[:-4]}AAAA.{signature}",
        "no token": "x.y.z",
        "long": "a" * 17_000,
        "empty": ".",
    }
    for why, token in bad.items():
        refused = await answer(url, token)
        assert (refused.status_code, refused.json()["detail"]) == (401, "The token is not valid"), why
        assert "invalid_token" in refused.headers["www-authenticate"], why


async def test_a_token_without_tenant_or_role_is_forbidden(url: str, provider: Provider) -> None:
    wrong: list[dict[str, Any]] = [{}, {"org": {"id": ""}}, {"org": {"id": "a/b"}}, {"org": {"id": 7}}, {"org": "acme"}]
    for claims in wrong:
        assert (await answer(url, provider.token(**claims))).status_code == 403, claims
    for groups in (None, [], "strangers", ["admin"], {"writers": 1}):
        assert (await answer(url, provider.token(org={"id": "acme"}, groups=groups))).status_code == 403, groups


async def test_a_new_key_of_the_provider_is_noticed_and_an_old_one_forgotten(
    url: str, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing_keys, "LOOK_AGAIN_S", 0.2)
    provider.keys["two"] = ec.generate_private_key(ec.SECP256R1())

    async def opens(token: str) -> bool:
        return (await answer(url, token)).status_code == 200

    await eventually(lambda: opens(provider.token(kid="two", alg="ES256", org={"id": "acme"})), within_s=10)
    monkeypatch.setattr(signing_keys, "LOOK_AGAIN_S", 60.0)
    asked = provider.asked
    for _ in range(20):  # an unknown key is no way to have the provider asked for every request
        assert not await opens(provider.token(kid="gone", key=provider.keys["one"], org={"id": "acme"}))
    assert provider.asked - asked <= 1
    monkeypatch.setattr(signing_keys, "LOOK_AGAIN_S", 0.2)
    old = provider.keys.pop("two")
    monkeypatch.setattr(signing_keys, "FRESH_S", 0.1)

    async def forgotten() -> bool:
        return not await opens(provider.token(kid="two", key=old, alg="ES256", org={"id": "acme"}, n=time.time()))

    await eventually(forgotten, within_s=10)


async def test_tokens_are_verified_while_the_provider_is_away(
    url: str, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing_keys, "FRESH_S", 0.0)
    monkeypatch.setattr(signing_keys, "LOOK_AGAIN_S", 0.0)
    provider.status = 503
    try:
        assert (await answer(url, provider.token(org={"id": "acme"}, n=1))).status_code == 200
    finally:
        provider.status = 200


async def test_keys_may_stand_in_a_file(database_uri: str, provider: Provider, tmp_path: Any) -> None:
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps(provider.jwks()))
    with live_server_on(database_uri, settings=Settings(auth=rules(str(file)))) as server:
        assert (await answer(server.url, provider.token(kid=None, org={"id": "acme"}))).status_code == 200


async def test_a_shared_secret_serves_providers_that_have_one(database_uri: str, provider: Provider) -> None:
    auth: dict[str, Any] = {"jwt": {"issuer": ISSUER, "audience": AUDIENCE, "algorithms": ["HS256"]}}
    with live_server_on(database_uri, settings=Settings(auth=auth, jwt_secret=SECRET)) as server:
        assert (await answer(server.url, provider.token(key=SECRET, alg="HS256"))).status_code == 200
        assert (await answer(server.url, provider.token(key="x" * 40, alg="HS256"))).status_code == 401
        assert (await answer(server.url, provider.token())).status_code == 401
