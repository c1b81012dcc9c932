"""The servers that tests maltreat do what the tests believe."""

from collections.abc import Callable

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from services import Valkey

_NO_RETRY = Retry(NoBackoff(), 0)


def test_killed_valkey_comes_back_empty_on_its_port(make_redis: Callable[[], Valkey]) -> None:
    server = make_redis()
    with redis.Redis(host="127.0.0.1", port=server.port, retry=_NO_RETRY) as client:
        client.set("a", 1)
        server.kill()
        with pytest.raises(redis.ConnectionError):
            client.get("a")
        server.resume()
        assert client.get("a") is None


def test_paused_valkey_hangs_and_goes_on_with_its_data(make_redis: Callable[[], Valkey]) -> None:
    server = make_redis()
    with server.client() as client:
        client.set("a", 1)
    with redis.Redis(host="127.0.0.1", port=server.port, socket_timeout=0.2, retry=_NO_RETRY) as impatient:
        server.pause()
        with pytest.raises(redis.TimeoutError):
            impatient.get("a")
        server.unpause()
    with server.client() as client:
        assert client.get("a") == b"1"


def test_redis_url_is_empty(redis_url: str) -> None:
    with redis.Redis(port=int(redis_url.rpartition(":")[2])) as client:
        assert client.get("left") is None
        client.set("left", "behind")


def test_redis_url_is_empty_again(redis_url: str) -> None:
    test_redis_url_is_empty(redis_url)
