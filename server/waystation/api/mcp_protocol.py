"""What MCP says: versions, the two ways in which a request may come, and results in the SDK's types.

    until 2025-11-25   `initialize` agrees on a version; later requests name it in a header
    from 2026-07-28    no handshake: each request brings its version and capabilities in `_meta`

Importing this module takes 0.3 s for the SDK's types: `mcp.py` does it with the first request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

import mcp_types as mcp
from mcp_types import jsonrpc, methods
from mcp_types.version import (
    HANDSHAKE_PROTOCOL_VERSIONS,
    KNOWN_PROTOCOL_VERSIONS,
    LATEST_HANDSHAKE_VERSION,
    MODERN_PROTOCOL_VERSIONS,
)
from pydantic import ValidationError

import waystation
from waystation.api.routing import describe
from waystation.api.rpc import INVALID_PARAMS, METHOD_NOT_FOUND, Call, RpcError
from waystation.runs.tools import RESUME, Called, ToolPage
from waystation_db.json import dumps

VERSION_HEADER: Final = "mcp-protocol-version"
THREAD_META: Final = "waystation/thread_id"
RUN_META: Final = "waystation/run_id"
INTERRUPTED_META: Final = "waystation/interrupted"

_INFO: Final = mcp.Implementation(name="Waystation", version=waystation.__version__)
_CAPABILITIES: Final = mcp.ServerCapabilities(tools=mcp.ToolsCapability(list_changed=False))
_INSTRUCTIONS: Final = (
    "Each tool runs an assistant. A result that says that the run waits for an answer also says how to give it: call "
    "the same tool again with the argument it names."
)
_STATUS: Final = {
    jsonrpc.PARSE_ERROR: 400,
    jsonrpc.INVALID_REQUEST: 400,
    jsonrpc.INVALID_PARAMS: 400,
    jsonrpc.HEADER_MISMATCH: 400,
    jsonrpc.UNSUPPORTED_PROTOCOL_VERSION: 400,
    jsonrpc.METHOD_NOT_FOUND: 404,
}


def version_of(headers: Mapping[str, str]) -> str:
    """The version that a request's header names; without one it is that in which the header came up.

    Raises:
        RpcError: nobody knows that version.
    """
    named = headers.get(VERSION_HEADER)
    if named is None:
        return mcp.DEFAULT_NEGOTIATED_VERSION
    if named not in KNOWN_PROTOCOL_VERSIONS:
        raise _unsupported(named, KNOWN_PROTOCOL_VERSIONS)
    return named


def is_modern(version: str) -> bool:
    """Whether requests of this version come without a handshake."""
    return version in MODERN_PROTOCOL_VERSIONS


def status_of(error: RpcError, *, modern: bool) -> int:
    """The HTTP status that goes with an error: older clients look for errors in answers of 200."""
    legacy = 400 if error.code in (jsonrpc.INVALID_REQUEST, jsonrpc.UNSUPPORTED_PROTOCOL_VERSION) else 200
    return _STATUS.get(error.code, 200) if modern else legacy


def check_envelope(call: Call, headers: Mapping[str, str]) -> None:
    """That a request without handshake brings what it has to, and that its headers say what its body says.

    Raises:
        RpcError: not so.
    """
    found = call.params.get("_meta")
    meta = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    needed = (mcp.PROTOCOL_VERSION_META_KEY, mcp.CLIENT_CAPABILITIES_META_KEY)
    if missing := [key for key in needed if key not in meta]:
        raise RpcError(INVALID_PARAMS, f"params._meta: {', '.join(missing)} should be there")
    said = {VERSION_HEADER: meta[mcp.PROTOCOL_VERSION_META_KEY], "mcp-method": call.method}
    if call.method == "tools/call":
        said["mcp-name"] = call.params.get("name")
    for header, value in said.items():
        if headers.get(header) != value:
            raise RpcError(jsonrpc.HEADER_MISMATCH, f"The header {header} does not match the body")


def check_params(call: Call, version: str) -> None:
    """That a method is one of the version's and its parameters are as the version says.

    Raises:
        RpcError: not so.
    """
    try:
        methods.validate_client_request(call.method, version, call.params)
    except KeyError:
        raise unknown_method(call) from None
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)
        raise RpcError(INVALID_PARAMS, f"Invalid params: {describe(None, wrong)}") from None


def unknown_method(call: Call) -> RpcError:
    """The refusal of a method that is not served."""
    return RpcError(METHOD_NOT_FOUND, f"Method not found: {call.method[:100]}")


def initialized(params: Mapping[str, Any]) -> dict[str, Any]:
    """The result of `initialize`: the client's version if it can be spoken, else the newest with a handshake."""
    asked = params.get("protocolVersion")
    version = asked if asked in HANDSHAKE_PROTOCOL_VERSIONS else LATEST_HANDSHAKE_VERSION
    result = mcp.InitializeResult(
        protocol_version=version, capabilities=_CAPABILITIES, server_info=_INFO, instructions=_INSTRUCTIONS
    )
    return _wire("initialize", version, result)


def discovered(version: str) -> dict[str, Any]:
    """The result of `server/discover`."""
    result = mcp.DiscoverResult(
        supported_versions=list(MODERN_PROTOCOL_VERSIONS), capabilities=_CAPABILITIES, instructions=_INSTRUCTIONS
    )
    return _wire("server/discover", version, result)


def listed(page: ToolPage, version: str) -> dict[str, Any]:
    """The result of `tools/list`. Its cursor is the id of the last assistant on the page."""
    found = [
        mcp.Tool(
            name=tool.name,
            title=tool.title,
            description=tool.description,
            input_schema=tool.input_schema,
            output_schema=tool.output_schema,
            _meta={"waystation/assistant_id": tool.assistant_id},
        )
        for tool in page.tools
    ]
    return _wire("tools/list", version, mcp.ListToolsResult(tools=found, next_cursor=page.next_after))


def called(call: Called, version: str) -> dict[str, Any]:
    """The result of `tools/call`: the output as an object and as JSON text, or why there is none."""
    meta: dict[str, Any] = {THREAD_META: call.key.thread_id, RUN_META: call.key.run_id}
    if call.error is not None:
        result = mcp.CallToolResult(content=[_text(call.error)], is_error=True, _meta=meta)
        return _wire("tools/call", version, result)
    texts = [_text(dumps(call.output).decode())]
    if call.interrupts:
        meta[INTERRUPTED_META] = True
        texts.insert(0, _text(_how_to_answer(call)))
    return _wire(
        "tools/call", version, mcp.CallToolResult(content=[*texts], structured_content=call.output, _meta=meta)
    )


def empty(version: str) -> dict[str, Any]:
    """A result that says nothing."""
    return _stamped(version, {})


def _how_to_answer(call: Called) -> str:
    asked: list[Any] = [interrupt["value"] for interrupt in call.interrupts]
    argument = dumps({RESUME: {"thread_id": call.key.thread_id, "value": "<the answer>"}}).decode()
    several = " Answer all of them by an object of interrupt id and value." if len(asked) > 1 else ""
    return (
        f"The run waits for an answer. It asks: {dumps(asked[0] if len(asked) == 1 else asked).decode()}\n"
        f"To go on, call this tool again with these arguments and no others: {argument}{several}"
    )


def _text(text: str) -> mcp.TextContent:
    return mcp.TextContent(type="text", text=text)


def _wire(method: str, version: str, result: mcp.Result) -> dict[str, Any]:
    shown = result.model_dump(by_alias=True, mode="json", exclude_none=True)
    if isinstance(result, mcp.CallToolResult) and result.structured_content is not None:
        shown["structuredContent"] = result.structured_content  # nulls in it mean something
    return _stamped(version, methods.serialize_server_result(method, version, shown))


def _stamped(version: str, result: dict[str, Any]) -> dict[str, Any]:
    """Without a handshake, every result says who made it and that it is complete."""
    if not is_modern(version):
        return result
    info = _INFO.model_dump(by_alias=True, exclude_none=True)
    meta = {mcp.SERVER_INFO_META_KEY: info, **result.get("_meta", {})}
    return {"resultType": "complete", **result, "_meta": meta}


def _unsupported(named: str, supported: tuple[str, ...]) -> RpcError:
    data = {"supported": list(supported), "requested": named[:100]}
    return RpcError(jsonrpc.UNSUPPORTED_PROTOCOL_VERSION, "Unsupported protocol version", data)
