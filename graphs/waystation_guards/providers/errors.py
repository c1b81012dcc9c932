"""What kind of failure an exception of a provider's client is, how long to wait, and whether it was billed.

    failure = classify(error)
    failure.kind            "rate_limit", "overload", "timeout", … : what a failover decides by
    failure.retry_after_s   what the provider asks for, in headers or in words; None where it asks for nothing
    failure.billed          what of a call that showed nothing was probably billed: "no", "input", or "answer" (a whole
                            one that was lost); where tokens were shown, the prompt and these were

Clients are told apart by the names of their classes, statuses and codes: none of their packages is imported. It knows
the clients of OpenAI, Azure and Anthropic, httpx, botocore, Google's, and anything that carries a status.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from langchain_core.messages import BaseMessage

from waystation_guards.errors import GuardError, StreamBroken
from waystation_guards.providers.retry_after import retry_after_s

ErrorClass = Literal[
    "rate_limit",
    "overload",
    "timeout",
    "context_window",
    "content_policy",
    "auth",
    "bad_request",
    "connection",
    "malformed",
    "unknown",
]
"""`auth`: anything about the account, such as a key, a permission, a model that it does not have, or its quota: waiting
does not help, another account does. `connection`: refused, reset, cut, or a stream that ended without its end.
`malformed`: an answer that is none."""

Billed = Literal["no", "input", "answer"]


@dataclass(frozen=True, slots=True)
class Failure:
    """What an exception says. `status` is HTTP's, `code` the provider's word; None and "" where there is none."""

    kind: ErrorClass
    retry_after_s: float | None = None
    billed: Billed = "no"
    status: int | None = None
    code: str = ""

    @property
    def may_pass(self) -> bool:
        """Whether the same request to the same target may succeed later."""
        return self.kind in ("rate_limit", "overload", "timeout", "connection", "malformed")


def classify(error: BaseException) -> Failure:
    """What kind of failure it is. Never raises.

    Guards' refusals and what is nobody's known error are `unknown`: they should not be tried again.
    """
    if isinstance(error, BaseExceptionGroup):
        first: BaseException = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
        return classify(first)
    if not isinstance(error, Exception):  # cancelled, or a stream that nobody reads on
        return Failure("unknown", billed="input")
    if isinstance(error, StreamBroken):
        return Failure("connection", billed="input")
    if isinstance(error, GuardError):
        return Failure("unknown")
    status, said = _status(error), _said(error)
    code, text = _code(error, said), _text(error, said)
    kind = _kind(error, status, code, text)
    wait_s = retry_after_s(error, text) if kind in ("rate_limit", "overload", "timeout") else None
    return Failure(kind, wait_s, _billed(error, kind, status), status, code)


def class_of_answer(message: BaseMessage) -> ErrorClass | None:
    """The failure that arrives as a success: a refusal, or a window that was full. None for an answer."""
    told = cast("Mapping[str, Any]", message.response_metadata)
    incomplete = cast("Mapping[str, Any]", told.get("incomplete_details") or {})
    reasons = {str(told.get(name) or "") for name in _FINISH} | {str(incomplete.get("reason") or "")}
    if reasons & _REFUSED:
        return "content_policy"
    return "context_window" if "model_context_window_exceeded" in reasons else None


_FINISH: Final = ("finish_reason", "stop_reason", "stopReason")
_REFUSED: Final = frozenset(("content_filter", "refusal", "SAFETY", "guardrail_intervened", "content_filtered"))

_BY_CODE: Final[tuple[tuple[ErrorClass, tuple[str, ...]], ...]] = (
    ("auth", ("insufficient_quota", "billing", "invalid_api_key", "authentication", "permission", "accessdenied")),
    ("auth", ("not_found", "model_not_found", "deploymentnotfound", "resourcenotfound", "unrecognizedclient")),
    ("context_window", ("context_length", "string_above_max_length", "request_too_large")),
    ("content_policy", ("content_filter", "content_policy", "responsibleaipolicy", "safety", "invalid_prompt")),
    ("rate_limit", ("rate_limit", "ratelimit", "throttling", "toomanyrequests", "resource_exhausted")),
    ("timeout", ("timeout", "deadline")),
    ("overload", ("overload", "server_error", "api_error", "unavailable", "internal", "engine", "modelnotready")),
    ("bad_request", ("invalid", "validation", "bad_request", "unsupported")),
)
"""What a provider's code or type contains, in the order in which to look."""

_CONTEXT: Final = (
    "maximum context length",
    "context window",
    "context limit",
    "prompt is too long",
    "input is too long",
    "too many tokens",
    "exceed the configured limit",
    "maximum number of tokens",
    "contextwindowexceeded",
)
_POLICY: Final = ("content filter", "content management policy", "content policy", "usage policy", "safety system")
_QUOTA: Final = ("exceeded your current quota", "usage limits", "credit balance", "billing")

_NO_PIECES: Final = "No generation chunks were returned"
"""What LangChain says of a stream without any piece; callbacks are told before it is raised."""

_BY_STATUS: Final[Mapping[int, ErrorClass]] = {
    400: "bad_request",
    401: "auth",
    402: "auth",
    403: "auth",
    404: "auth",
    405: "bad_request",
    407: "auth",
    408: "timeout",
    409: "overload",
    413: "context_window",
    415: "bad_request",
    422: "bad_request",
    425: "overload",
    429: "rate_limit",
    504: "timeout",
    524: "timeout",
}

_BY_NAME: Final[tuple[tuple[ErrorClass, frozenset[str]], ...]] = (
    ("context_window", frozenset(("ContextOverflowError",))),
    ("content_policy", frozenset(("OpenAIRefusalError", "ContentFilterFinishReasonError"))),
    ("connection", frozenset(("ConnectTimeout", "PoolTimeout", "ConnectError"))),
    ("timeout", frozenset(("APITimeoutError", "TimeoutException", "ModelTimeoutError", "TimeoutError"))),
    ("rate_limit", frozenset(("ModelRateLimitError",))),
    ("auth", frozenset(("ModelAuthenticationError", "ModelPermissionDeniedError", "ModelNotFoundError"))),
    ("bad_request", frozenset(("ModelInvalidRequestError",))),
    ("overload", frozenset(("ModelAPIError",))),
    (
        "connection",
        frozenset(
            (
                "APIConnectionError",
                "ModelConnectionError",
                "TransportError",
                "ConnectionError",
                "gaierror",
                "SSLError",
                "ClientConnectionError",
                "EndpointConnectionError",
            )
        ),
    ),
    ("malformed", frozenset(("JSONDecodeError", "UnicodeDecodeError", "APIResponseValidationError", "DecodingError"))),
)
"""Names of classes, the error's own or an ancestor's, where no status says it."""

_CLIENTS: Final = ("langchain_", "openai", "anthropic", "httpx", "pydantic", "google", "botocore", "json")
_BEFORE_SENDING: Final = frozenset(
    ("ConnectTimeout", "PoolTimeout", "ConnectError", "ConnectionRefusedError", "gaierror")
)


def _kind(error: BaseException, status: int | None, code: str, text: str) -> ErrorClass:
    named = _by_name(error)
    if named in ("context_window", "content_policy"):
        return named
    if status is not None and status >= 400:
        return _by_status(status, code, text)
    if named is not None:
        return named
    if code and (found := _by_code(code)) is not None:  # an error in the middle of a stream, which began as 200
        return _narrowed(found, text)
    if text == _NO_PIECES:
        return "malformed"
    if isinstance(error, (ValueError, TypeError, LookupError, AttributeError)) and _raised_by_a_client(error):
        # AzureChatOpenAI has no class for a refusal either.
        return "content_policy" if _narrowed("bad_request", text) == "content_policy" else "malformed"
    return "unknown"


def _by_status(status: int, code: str, text: str) -> ErrorClass:
    if status in (400, 413, 422, 429):
        by_code = _by_code(code)
        if by_code in ("context_window", "content_policy") or (by_code == "auth" and status == 429):
            return by_code
        return _narrowed(_BY_STATUS[status], text)
    return _BY_STATUS.get(status, "overload" if status >= 500 else "bad_request")


def _narrowed(kind: ErrorClass, text: str) -> ErrorClass:
    """What the words say of a class that is too wide. A provider's codes for these are mostly `invalid_request`."""
    lowered = text.lower()
    if kind in ("bad_request", "overload") and any(words in lowered for words in _CONTEXT):
        return "context_window"
    if kind == "bad_request" and any(words in lowered for words in _POLICY):
        return "content_policy"
    if kind in ("rate_limit", "bad_request") and any(words in lowered for words in _QUOTA):
        return "auth"
    return kind


def _by_code(code: str) -> ErrorClass | None:
    lowered = code.lower()
    return next((kind for kind, parts in _BY_CODE if any(part in lowered for part in parts)), None)


def _by_name(error: BaseException) -> ErrorClass | None:
    """The nearest cause with a known name: clients wrap what tells more than they do."""
    names = [{cls.__name__ for cls in type(one).__mro__} for one in _chain(error)]
    for kind, known in _BY_NAME:
        if names[0] & known:
            if kind == "timeout" and any(one & _BEFORE_SENDING for one in names):
                return "connection"
            return kind
    return None


def _billed(error: BaseException, kind: ErrorClass, status: int | None) -> Billed:
    if status is not None and status >= 400:
        return "no"
    match kind:
        case "timeout":
            # A stream that was waited for in vain brought no token; of a whole answer nobody knows how far it was.
            return "input" if getattr(error, "phase", "") in ("first_token", "between_tokens", "whole") else "answer"
        case "connection":
            # Whoever cuts an answer had begun with it; connections that end before are mostly refused or stale ones.
            return "answer" if any("complete message body" in str(one) for one in _chain(error)) else "no"
        case "malformed":
            return "answer"
        case "unknown":
            return "no"
        case "content_policy":
            return "answer"
        case "rate_limit" | "overload" | "context_window" | "auth" | "bad_request":
            return "input"  # an event in the middle of a stream


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes; bounded, as a cause may be its own."""
    one: BaseException | None = error
    for _ in range(8):
        if one is None:
            return
        yield one
        one = one.__cause__ or one.__context__


def _status(error: BaseException) -> int | None:
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):  # botocore's
        metadata: Any = cast("Mapping[str, Any]", response).get("ResponseMetadata")
        return _number(metadata.get("HTTPStatusCode")) if metadata else None
    holders = (error, response) if response is not None else (error,)
    names = ("status_code", "http_status", "status", "code")
    found = (_number(getattr(holder, name, None)) for holder in holders for name in names)
    return next((number for number in found if number is not None), None)


def _number(value: Any) -> int | None:
    value = getattr(value, "value", value)  # http.HTTPStatus and its like
    return value if isinstance(value, int) and not isinstance(value, bool) and 100 <= value < 600 else None


def _said(error: BaseException) -> Mapping[str, Any]:
    """The error as the provider wrote it: the body's `error`, or the body."""
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):
        return cast("Mapping[str, Any]", cast("Mapping[str, Any]", response).get("Error") or {})
    body: Any = getattr(error, "body", None)
    if body is None and error.args:
        body = error.args[0]  # LangChain raises ValueError with what it found in the member `error` of an answer
    if isinstance(body, Mapping):
        inner = cast("Mapping[str, Any]", body).get("error")
        return cast("Mapping[str, Any]", inner if isinstance(inner, Mapping) else body)
    if hasattr(body, "message") and hasattr(body, "code"):  # an error of OpenAI's Responses, as an object
        found: Any = body
        return {"message": found.message, "code": found.code or getattr(found, "type", None)}
    return {}


def _code(error: BaseException, said: Mapping[str, Any]) -> str:
    for name in ("code", "Code", "type", "status"):
        if isinstance(value := said.get(name), str) and value:
            return value
    for name in ("code", "type"):
        if isinstance(value := getattr(error, name, None), str) and value:
            return value
    # LangChain's way to tell of an error event of OpenAI's Responses: "<code>: <message>".
    word, colon, _ = str(error).partition(": ")
    return word if isinstance(error, ValueError) and colon and word.isidentifier() else ""


def _text(error: BaseException, said: Mapping[str, Any]) -> str:
    message = said.get("message") or said.get("Message")
    return message if isinstance(message, str) else str(error)


def _raised_by_a_client(error: BaseException) -> bool:
    """Whether the innermost frame is a client's: it stumbled over an answer. Elsewhere it is a program's own error."""
    trace, name = error.__traceback__, ""
    while trace is not None:
        name, trace = str(trace.tb_frame.f_globals.get("__name__", "")), trace.tb_next
    return name.startswith(_CLIENTS)
