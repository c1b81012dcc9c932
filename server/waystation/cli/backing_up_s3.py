"""A backup under a prefix of S3-compatible storage. Address, region and credentials are those of boto3: the AWS
variables, profiles, or the role of the machine or pod."""

from __future__ import annotations

import io
from typing import Any

from waystation.cli.backing_up_places import S3_SCHEME, Place, complete, incomplete, missing
from waystation.cli.failures import CommandError, UsageError
from waystation_db.backup_format import MANIFEST, Part

try:
    import boto3
    from boto3.exceptions import Boto3Error
    from boto3.s3.transfer import TransferConfig
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError
except ImportError:
    raise UsageError("s3:// needs boto3: install waystation[s3]") from None

_FAILURES = (BotoCoreError, ClientError, Boto3Error)
_GONE = ("404", "NoSuchKey", "NotFound")
# Parts are a few MB; one with a huge row goes up in pieces.
_TRANSFER = TransferConfig(multipart_threshold=64 << 20, multipart_chunksize=32 << 20, max_concurrency=2)


class Bucket(Place):
    """`s3://bucket/prefix`."""

    def __init__(self, url: str) -> None:
        bucket, _, prefix = url.removeprefix(S3_SCHEME).partition("/")
        if not bucket:
            raise UsageError(f"{url}: expected s3://bucket/prefix")
        super().__init__(url)
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._there: set[str] = set()
        retries = Config(retries={"max_attempts": 5, "mode": "standard"}, connect_timeout=10, read_timeout=60)
        try:
            # boto3 makes its clients at run time, without types.
            self._client: Any = boto3.client("s3", config=retries)  # pyright: ignore[reportUnknownMemberType]
        except (BotoCoreError, ValueError) as error:
            raise UsageError(f"{url}: {error}") from None

    def open_for_writing(self) -> int:
        try:
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
            self._there = {str(one["Key"]) for page in pages for one in page.get("Contents", ())}
        except _FAILURES as error:
            raise CommandError(f"{self.name}: {error}") from None
        if self._prefix + MANIFEST in self._there:
            raise complete(self.name)
        return len(self._there)

    def put(self, name: str, data: bytes) -> bool:
        key = self._key(name)
        if key in self._there:
            return False
        self._upload(key, data)
        self._there.add(key)
        return True

    def finish(self, manifest: bytes) -> None:
        self._upload(self._prefix + MANIFEST, manifest)

    def read_manifest(self) -> bytes:
        try:
            return self._get(self._prefix + MANIFEST)
        except ClientError as error:
            if _code(error) in _GONE:
                raise incomplete(self.name) from None
            raise CommandError(f"{self.name}: {error}") from None
        except _FAILURES as error:
            raise CommandError(f"{self.name}: {error}") from None

    def read(self, part: Part) -> bytes:
        try:
            return self._get(self._key(part.sha256))
        except ClientError as error:
            if _code(error) in _GONE:
                raise missing(part, "there is no such object") from None
            raise CommandError(f"{self.name}: {error}") from None
        except _FAILURES as error:
            raise CommandError(f"{self.name}: {error}; repeat the command to go on") from None

    def _key(self, name: str) -> str:
        return f"{self._prefix}parts/{name}.gz"

    def _upload(self, key: str, data: bytes) -> None:
        try:
            self._client.upload_fileobj(io.BytesIO(data), self._bucket, key, Config=_TRANSFER)
        except _FAILURES as error:
            raise CommandError(f"{self.name}: {error}; repeat the command to go on") from None

    def _get(self, key: str) -> bytes:
        answer: Any = self._client.get_object(Bucket=self._bucket, Key=key)
        return bytes(answer["Body"].read())


def _code(error: ClientError) -> str:
    response: Any = error.response  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # no types
    return str(response.get("Error", {}).get("Code", ""))
