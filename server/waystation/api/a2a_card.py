"""The card of an assistant: what an agent-to-agent client reads before it calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

import waystation
from waystation.runs.task_parts import takes_messages
from waystation.runs.tool_shapes import Schema
from waystation_db.tools import ToolRow

HISTORY_SCOPE: Final = "https://langchain.com/a2a/extensions/history-scope/v1"
SCOPE_HEADER: Final = "LangGraph-A2A-History-Scope"
_MODES: Final = ["application/json", "text/plain"]


def agent_card(assistant: ToolRow, takes: Schema | None, *, url: str, auth: Mapping[str, Any] | None) -> dict[str, Any]:
    """The card. `auth` is what the project's `auth.openapi` says. It can be read by clients of 0.3 and of 1.0."""
    name, assistant_id = assistant.name, assistant.assistant_id
    description = assistant.description or f"{name} assistant"
    modes = [*_MODES, "*/*"] if takes_messages(takes) else ["application/json"]
    properties = cast("dict[str, Any]", (takes or {}).get("properties", {}))
    return {
        "name": name,
        "description": description,
        "url": url,
        "protocolVersion": "0.3.0",
        "preferredTransport": "JSONRPC",
        "supportedInterfaces": [
            {"url": url, "protocolBinding": "JSONRPC", "protocolVersion": version} for version in ("1.0", "0.3")
        ],
        "capabilities": {
            "streaming": True,
            "pushNotifications": False,
            "stateTransitionHistory": False,
            "extensions": [_history_scope()],
        },
        "defaultInputModes": modes,
        "defaultOutputModes": _MODES,
        "skills": [
            {
                "id": f"{assistant_id}-main",
                "name": f"{name} Capabilities",
                "description": description,
                "tags": ["assistant", "langgraph"],
                "examples": [],
                "inputModes": modes,
                "outputModes": _MODES,
                "metadata": {
                    "inputSchema": {
                        "required": (takes or {}).get("required", []),
                        "properties": sorted(properties),
                        "supportsA2A": True,
                    }
                },
            }
        ],
        "version": waystation.__version__,
        **_security(auth or {}),
    }


def _history_scope() -> dict[str, Any]:
    return {
        "uri": HISTORY_SCOPE,
        "description": "Whether histories are of the task alone or of its whole context",
        "required": False,
        "params": {
            "header": SCOPE_HEADER,
            "values": ["context", "task"],
            "default": "context",
            "methods": ["SendMessage", "GetTask"],
        },
    }


def _security(openapi: Mapping[str, Any]) -> dict[str, Any]:
    """The schemes as OpenAPI has them: so does 0.3, and clients of 1.0 translate them."""
    components = cast("dict[str, Any]", openapi.get("components") or {})
    declared = components.get("securitySchemes") or openapi.get("securitySchemes")
    if not isinstance(declared, dict) or not declared:
        return {}
    shown: dict[str, Any] = {"securitySchemes": declared}
    requirements = openapi.get("security")
    return {**shown, "security": requirements} if isinstance(requirements, list) else shown
