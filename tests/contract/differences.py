"""Where Waystation answers otherwise than the reference server, on purpose: place by place, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final, Protocol


class _Place(Protocol):
    @property
    def where(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def theirs(self) -> Any: ...
    @property
    def ours(self) -> Any: ...


@dataclass(frozen=True)
class Explained:
    """A difference that is meant. `where` (`file/step`) and `path` are globs over the place; `reason` is one sentence.

    With `ours` given, only that value of ours is explained.
    """

    where: str
    path: str
    reason: str
    ours: Any = ...

    def covers(self, place: _Place) -> bool:
        return (
            fnmatchcase(place.where, self.where)
            and fnmatchcase(place.path, self.path)
            and (self.ours is ... or self.ours == place.ours)
        )


_ITS_OWN_VERSION = "Each server names its own version and plan; clients read langgraph_version only."
_ERROR_CODE = "Errors carry a stable code for machines beside the text that the SDKs show."
_WORDING = "The text of a refusal is for people: ours names the field and what was expected, in one line."
_KWARGS = "A run's kwargs are informative and no client needs their details; ours hold what was sent."
_SPEED = (
    "The reference starts a run up to a second after it was created, so its readers and cancels meet another moment."
)
_WITHOUT_A_REASON_TO_FAIL = "The reference fails with 500 where there is a sensible answer (its bug)."
_LEFT_OUT_BY_THE_SAVER = "LangGraph's own Postgres saver leaves these keys out of a checkpoint's metadata."
_BY_HAND = "The graph's id is in the thread's metadata; a checkpoint made by hand does not repeat it."
_SCHEMAS = "The reference cannot make input and output schemas with this version of the library and shows null."
_SIZE = "The recorder cuts long bodies and notes their length, which differs."
_DEV_STORE = "Sizes and counts are those of another store."
_BACK_AFTER_DELETION = "The reference had lost this default assistant when the scenario on assistants deleted it."
_STOPPED = "The replay stops what fires every second, so that what comes after it finds things at rest."
_EVERY_SECOND = "The reference looks for due crons every five seconds; ours fire at each of their ticks."
_UNREAD = "Nobody reads what a receiver answers, so that it need not be compressed."
_SIGNED = "Webhooks have an id, a time and, with a secret, a signature, by the Standard Webhooks convention."
_STATELESS = "A stateless run's metadata names its graph, too."
_LATER = "The part of the API that this step asks for comes in a later version."

_BARE_TEXT = "The bare text is JSON, and its content type says so."
_NEWEST_FIRST = "The last changed come first, as in LangGraph's Postgres store; its development store sorts otherwise."
_EARLIER_ITEMS = "What earlier scenarios of the recording had put."

_DEVELOPMENT_STORE_TTL = "The reference's development store never shows the TTL."
_RECORDED_BEFORE = "The recorder's server still had what a recording before had left."

_EVERYWHERE: Final = (
    Explained("*", "response.body.code", _ERROR_CODE),
    Explained("*", "*.langgraph_api_version", _ITS_OWN_VERSION),
    Explained("*", "*.langgraph_plan", _ITS_OWN_VERSION),
    Explained("*", "*.langgraph_api_url", _ITS_OWN_VERSION, ours="<absent>"),
    Explained("*", "*.configurable.__request_start_time_ms__", "An internal key of the reference.", ours="<absent>"),
    Explained("*", "*.configurable.__after_seconds__", "An internal key of the reference.", ours="<absent>"),
    Explained("*", "*.configurable.__pregel_node_finished", "An internal key of the reference.", ours="<absent>"),
    Explained("*", "*.configurable.__waystation_guards", "An internal key of ours, in processes that use guards."),
    Explained("*", "response.body*.kwargs.checkpoint", _KWARGS),
    Explained("*", "response.body*.kwargs.config.*", _KWARGS),
    Explained("*", "response.body*.kwargs.context.*", _KWARGS),
    Explained("*", "response.body.*metadata.langgraph_node", _LEFT_OUT_BY_THE_SAVER, ours="<absent>"),
    Explained("*", "response.body.*metadata.langgraph_step", _LEFT_OUT_BY_THE_SAVER, ours="<absent>"),
    Explained("*", "response.body.*metadata.langgraph_path", _LEFT_OUT_BY_THE_SAVER, ours="<absent>"),
    Explained("*", "response.body.*metadata.langgraph_triggers", _LEFT_OUT_BY_THE_SAVER, ours="<absent>"),
    Explained("*", "response.body.*metadata.langgraph_checkpoint_ns", _LEFT_OUT_BY_THE_SAVER, ours="<absent>"),
    Explained("*", "response.body.*metadata.checkpoint_*", _LEFT_OUT_BY_THE_SAVER, ours="<absent>"),
    Explained("*", "*.metadata.tag", "The recorder marks its own threads with something random."),
    Explained("*", "*.extracted.tag", "The recorder marks its own threads with something random."),
    Explained("*", "*.seen.execution_info", "The text holds the time of the attempt and another server's ids."),
    Explained("*", "*.seen.store", "The store is a Postgres store and not one in memory.", ours="PostgresStore"),
)

_SYSTEM: Final = (
    Explained("01-system/info", "response.body.version", _ITS_OWN_VERSION),
    Explained("01-system/info", "response.body.flags.*", "Only what this server has is announced."),
    Explained("01-system/metrics*", "response.headers.content-type", "The usual content type of Prometheus text."),
    Explained("01-system/metrics*", "response.body*", "Each server counts its own things."),
    Explained("01-system/*", "response.body._cut", _SIZE),
    Explained("01-system/JSON but not an object", "response.body.detail", _WORDING),
    Explained("01-system/ui*", "response.*", "There are no UI assets; 404 with a JSON body is the answer."),
)

_ASSISTANTS: Final = (
    Explained("02-assistants/*", "response.body._cut", _SIZE),
    Explained("02-assistants/create: *", "response.body.detail", _WORDING),
    Explained("02-assistants/search: *", "response.body.detail", _WORDING),
    Explained("02-assistants/latest", "response.body.*", "Setting the latest version restores every field (its bug)."),
    Explained("02-assistants/latest: no version", "response.status", "What is missing is named, with 422.", ours=422),
    Explained("02-assistants/latest: no version", "response.body.detail", _WORDING),
    Explained("02-assistants/patch after latest*", "response.body.*", "It patches the version that was restored."),
    Explained(
        "02-assistants/count: by graph", "response.body", "The restored version is one of another graph.", ours=2
    ),
    Explained("02-assistants/schemas", "response.*", _WITHOUT_A_REASON_TO_FAIL),
    Explained("02-assistants/schemas*", "response.body.*schema*", _SCHEMAS),
    Explained("02-assistants/schemas: a graph of messages", "response.body.graph_id", _SIZE),
    Explained("02-assistants/subgraphs*", "response.body.*child*", _SCHEMAS),
)

_THREADS: Final = (
    Explained("03-threads/create: *", "response.body.detail", _WORDING),
    Explained("03-threads/search: *", "response.body.detail", _WORDING),
    Explained("03-threads/prune: bad strategy", "response.body.detail", _WORDING),
    Explained("03-threads/*ttl*", "response.body*.ttl", "The reference's development store never shows the TTL."),
    Explained("03-threads/storage", "response.body.*", _DEV_STORE),
    Explained("03-threads/search: metadata", "response.body.*", "Newest created_at first, as the contract says."),
    Explained("03-threads/search: values", "response.*", _WITHOUT_A_REASON_TO_FAIL),
    Explained("03-threads/search: select", "response.body.*.interrupts", "The threads are in another order."),
    Explained("03-threads/history after supersteps", "response.body.*.metadata.graph_id", _BY_HAND, ours="<absent>"),
    Explained("03-threads/history *", "*.metadata.more", "LangGraph's own Postgres saver keeps plain values only."),
    Explained("03-threads/prune: keep_latest", "response.*", "The reference's development store cannot prune."),
    Explained("03-threads/history after keep_latest", "response.body.*parent_checkpoint*", "Its parent was pruned."),
)

_STATE: Final = (
    Explained("04-state/history POST: before as checkpoint", "response.*", _WITHOUT_A_REASON_TO_FAIL),
    Explained("04-state/*", "response.body.*metadata.graph_id", _BY_HAND, ours="<absent>"),
    Explained(
        "04-state/thread interrupts",
        "response.body.interrupts.<id>()",
        "The subgraph's state was replaced by hand: its task asks no more, the task that runs it still does.",
    ),
    Explained("04-state/history POST: limit 0", "response.body.detail", _WORDING),
    Explained(
        "04-state/state at checkpoint",
        "response.body.checkpoint.checkpoint_ns",
        "The namespace is named though it is empty.",
        ours="",
    ),
    Explained("04-state/state at checkpoint, POST, empty", "response.body.detail", _WORDING),
    Explained("04-state/update: invalid channel type", "response.body.detail", _WORDING),
)

_RUNS: Final = (
    Explained("05-runs/create with webhook null", "response.body.detail", _WORDING),
    Explained("05-runs/errors: *", "response.body.detail", _WORDING),
    Explained("05-runs/list: bad select", "response.body.detail", _WORDING),
    Explained("05-runs/join it", "response.body.*", "Feedback keys of a tracing product are ignored and fail no run."),
    Explained("05-runs/its thread (3)", "response.body.*", "Deleting a running run frees its thread (its bug)."),
    Explained("06-stateless/*", "response.body*metadata.graph_id", _STATELESS),
    Explained("06-stateless/*", "response.body.detail", _WORDING),
    Explained(
        "09-config/second run: does thread config stick",
        "response.body.seen.config.configurable.*",
        "The thread's stored config never feeds later runs.",
        ours="<absent>",
    ),
)

_MULTITASK: Final = (
    Explained("07-multitask/*runs at once", "response.body.*", _SPEED),
    Explained("07-multitask/queue of three: runs", "response.body.*.status", _SPEED),
    Explained("07-multitask/interrupt: join *", "response.body.ticks.*", _SPEED),
    Explained("07-multitask/interrupt: thread in the end", "response.body.values.ticks.*", _SPEED),
    Explained("07-multitask/what a subscriber of *", "response.events.*", _SPEED),
    Explained("07-multitask/runs", "response.body.*", _SPEED),
    Explained("07-multitask/state update while busy", "response.body.detail", _WORDING),
)

_CANCEL: Final = (
    Explained("08-cancel/run at once*", "response.*", _SPEED),
    Explained(
        "08-cancel/thread (4)", "response.body.*", "A rolled back run frees its thread, waited for or not (its bug)."
    ),
    Explained("08-cancel/thread*", "response.body.interrupts", "There is state, so there are interrupts.", ours={}),
    Explained("08-cancel/thread*", "response.body.values.ticks.*", _SPEED),
    Explained("08-cancel/state*", "response.body.values.ticks.*", _SPEED),
    Explained("08-cancel/state*", "response.body.metadata.step", _SPEED),
    Explained("08-cancel/* while it is cancelled", "response.*ticks*", _SPEED),
    Explained("08-cancel/stream while it is *", "response.events.*", _SPEED),
    Explained(
        "08-cancel/join while it is rolled back", "response.body.*", "A rolled back run has no values: it is gone."
    ),
    Explained("08-cancel/bulk: *", "response.body.detail", _WORDING),
)

_SERVED: Final = "`Location` of a stateless stream leads somewhere (its bug)."

_STREAMS: Final = (
    Explained("10-sse-modes/fan-out, updates", "response.*", _BACK_AFTER_DELETION),
    Explained("12-interrupts/command goto Send", "response.*", _BACK_AFTER_DELETION),
    Explained(
        "11-sse-resume/rejoin after the end, -1, two modes *", "response.events.*", "Several modes work (its bug)."
    ),
    Explained("11-sse-resume/stateless run: GET /runs/{id}/stream", "response.*", _SERVED),
    Explained("11-sse-resume/stateless resumable: rejoin", "response.*", _SERVED),
    Explained("11-sse-resume/join a running resumable *", "response.events.*", _SPEED),
    Explained("11-sse-resume/two subscribers: *", "response.events.*", _SPEED),
    Explained("11-sse-resume/join asking for *", "response.events.*", _SPEED),
    Explained("12-interrupts/multi: wait", "response.body.*", "The reference lost the values (its bug)."),
    Explained(
        "12-interrupts/multi: thread (2)",
        "response.body.values.log.*",
        "The thread shows what its state shows: the finished task's answer, though its neighbour still asks.",
    ),
    Explained("12-interrupts/bad interrupt_before", "response.body.detail", _WORDING),
)

_CRONS: Final = (
    Explained("14-crons/*: bad schedule", "response.body.detail", _WORDING),
    Explained("14-crons/*: bad timezone", "response.body.detail", _WORDING),
    Explained("14-crons/*: bad sort", "response.body.detail", _WORDING),
    Explained("14-crons/create: no schedule", "response.*", _WITHOUT_A_REASON_TO_FAIL),
    Explained("14-crons/cron after it fired", "response.body.*enabled", _STOPPED, ours=False),
    Explained("14-crons/the thread", "response.body.values.log.*", _EVERY_SECOND),
    Explained("14-crons/threads the stateless cron made", "response.headers.x-pagination-*", _EVERY_SECOND),
)

_HOOKS: Final = (
    Explained("15-webhooks/webhook received*", "request.headers.Host", "The receiver listens on another port."),
    Explained("15-webhooks/webhook received*", "request.headers.Content-Length", _KWARGS),
    Explained("15-webhooks/webhook received*", "request.headers.User-Agent", _ITS_OWN_VERSION),
    Explained("15-webhooks/webhook received*", "request.headers.Accept-Encoding", _UNREAD, ours="identity"),
    Explained("15-webhooks/webhook received*", "request.headers.webhook-*", _SIGNED),
    Explained("15-webhooks/webhook received*", "request.body.kwargs.*", _KWARGS),
    Explained("15-webhooks/webhook received (4)", "request.body.metadata.graph_id", _STATELESS, ours="steps"),
    Explained("15-webhooks/stateless run", "response.body.metadata.graph_id", _STATELESS, ours="steps"),
    Explained("15-webhooks/webhook received (5)", "request.body.values.ticks.*", _SPEED),
    Explained("15-webhooks/bad scheme", "response.body.detail", _WORDING),
)

_WAITS = "A call lasts as long as its run: the head of the answer goes out before its length is known."
_STRUCTURED = "The output is JSON, as text and as structured content, and says which run it came from."
_BOTH_VERSIONS = "Both versions of the protocol are spoken, and the card says so to clients of either."
_BESIDE = "The body also has the `detail` that every refusal here has."

_AGENTS: Final = (
    Explained("22-mcp/initialize", "response.body.result.serverInfo.*", _ITS_OWN_VERSION),
    Explained(
        "22-mcp/initialize", "response.body.result.instructions", "The model is told how questions are answered."
    ),
    Explained(
        "22-mcp/with a trailing slash", "response.headers.location", "A path holds behind any proxy.", ours="/mcp"
    ),
    Explained("22-mcp/initialize", "response.headers.mcp-session-id", "A session has a name."),
    Explained("22-mcp/tools/list", "response.body.result.tools.*", "The list is not empty (its bug)."),
    Explained("22-mcp/tools/call*", "response.headers.transfer-encoding", _WAITS, ours="chunked"),
    Explained("22-mcp/tools/call*", "response.body.result.content.*", _STRUCTURED),
    Explained("22-mcp/tools/call*", "response.body.result.structuredContent", _STRUCTURED),
    Explained("22-mcp/tools/call*", "response.body.result._meta", _STRUCTURED),
    Explained("22-mcp/tools/call*", "response.body.result.isError", "Success is said, too.", ours=False),
    Explained("22-mcp/GET", "response.*", "The methods that there are stand in `allow`."),
    Explained("22-mcp/DELETE", "response.*", "405 is how the protocol says that sessions are not ended by clients."),
    Explained("23-a2a/agent card", "response.body.supportedInterfaces.1", _BOTH_VERSIONS),
    Explained("23-a2a/agent card", "response.body.protocolVersion", _BOTH_VERSIONS, ours="0.3.0"),
    Explained("23-a2a/agent card", "response.body.preferredTransport", _BOTH_VERSIONS, ours="JSONRPC"),
    Explained("23-a2a/agent card", "response.body.version", _ITS_OWN_VERSION),
    Explained("23-a2a/agent card", "response.body.capabilities.extensions.*", "Tasks are not listed.", ours="<absent>"),
    Explained("23-a2a/agent card", "response.body.capabilities.extensions.0.description", _WORDING),
    Explained("23-a2a/agent card", "response.body.*nputModes.2", "Files are taken where messages are.", ours="*/*"),
    Explained("23-a2a/agent card", "*.inputSchema.required.0", _SCHEMAS, ours="messages"),
    Explained("23-a2a/*", "response.body.detail", _BESIDE),
    Explained("23-a2a/message/send*", "response.headers.transfer-encoding", _WAITS, ours="chunked"),
    Explained("23-a2a/tasks/get", "response.body.result.status.message", "The state says it.", ours="<absent>"),
    Explained("23-a2a/tasks/get", "response.body.result.artifacts", "What the task came to is shown also later."),
    Explained("23-a2a/message/stream", "response.events.4", "A text that has not grown is not told.", ours="<absent>"),
    Explained("23-a2a/message/send: a graph without*", "response.body.result.artifacts.0.parts.*", _STRUCTURED),
)

_STORE: Final = (
    Explained("13-store/put: *", "response.headers.content-type", _BARE_TEXT, ours="application/json"),
    Explained("13-store/get: no namespace", "response.headers.content-type", _BARE_TEXT, ours="application/json"),
    Explained("13-store/put: *", "response.body.detail", _WORDING),
    Explained("13-store/delete: no key", "response.body.detail", _WORDING),
    Explained("13-store/get: no key", "response.body.detail", "Every error has a `detail`, this one too."),
    Explained("13-store/search: prefix", "response.body.items.*", _NEWEST_FIRST),
    Explained("13-store/search: query", "response.body.items.*.score", "pgvector computes in single precision."),
    Explained("13-store/search: filter", "response.body.items.*", _NEWEST_FIRST),
    Explained("13-store/search: paged", "response.body.items.*", _NEWEST_FIRST),
    Explained("13-store/search: filter operators", "response.*", _WITHOUT_A_REASON_TO_FAIL),
    Explained("13-store/search: no prefix", "response.*", _WITHOUT_A_REASON_TO_FAIL),
    Explained("13-store/namespaces*", "response.body.namespaces.*", _EARLIER_ITEMS, ours="<absent>"),
)

_NEW_COMMAND = "The reference does not know this command of the protocol's types."
_SINCE = "Answers come before what is replayed, and a subscription's `since` counts on a socket, too."
_STRATEGY = "A run.start on a busy thread is answered at once, and its multitask strategy is applied."
_BOTH_FORMS = "Modes may be repeated, too; in the reference the last one wins (its bug)."
_STATE_SHOWN = "The state is the one that GET /threads/{id}/state shows."
_MOMENT = "The moment in which it happened."
_OPAQUE = "Event ids are opaque, unique and stable; ours have a form of their own."
_RUN_ID = "The types allow a run_id in the answer, and clients can use it."
_END_LAST = (
    "A run's end is its last event, sent when the thread shows it; the reference sends `interrupted` before the last "
    "states and questions."
)

_EVENTS: Final = (
    Explained("*", "response.*.params.timestamp", _MOMENT),
    Explained("*", "response.events.*.data.event_id", _OPAQUE),
    Explained("*", "response.body.result.run_id", _RUN_ID),
    Explained("*", "response.body*.kwargs.stream_mode.*", _KWARGS),
    Explained("*", "response.body*.kwargs.event_protocol", _KWARGS),
    Explained("17-events/run.start fan", "response.body.*", _BACK_AFTER_DELETION),
    Explained("17-events/fan-out, all channels", "response.events.*", _BACK_AFTER_DELETION),
    Explained("17-events/thread (2)", "response.body.*", "A failed run's steps are in the thread's values."),
    Explained("17-events/cancelled run", "response.events.*", _SPEED),
    Explained("17-events/rolled back run", "response.e*", "A rolled back run has an end: `interrupted`."),
    Explained("17-events/runs (2)", "response.body.*.status", _SPEED),
    Explained("16-thread-stream/with Last-Event-ID -1", "response.*", "-1 means everything, as it does for runs."),
    Explained("16-thread-stream/*", "response.events.*.data.state.metadata.graph_id", _BY_HAND, ours="<absent>"),
    Explained("16-thread-stream/GET stream*", "response.events.*.data.state.*", _STATE_SHOWN),
    Explained("16-thread-stream/GET stream*lifecycle while *", "response.events.*", _BOTH_FORMS),
    Explained("16-thread-stream/while a run is cancelled", "response.events.*", _SPEED),
    Explained("21-events-all-channels/nested_all with *", "response.events.*", _END_LAST),
    Explained("21-events-all-channels/*only custom*", "response.events.*", "Named events are replayed, too (its bug)."),
    Explained("21-events-all-channels/run.start, *", "response.*", _STRATEGY),
    Explained("21-events-all-channels/runs at once*", "response.body.*", _STRATEGY),
    Explained("21-events-all-channels/busy, *", "response.e*", _STRATEGY),
    Explained("19-events-errors/unknown assistant", "response.body.message", _WORDING),
    Explained("19-events-errors/unknown channel", "response.body.detail", _WORDING),
    Explained("19-events-errors/debug channel", "response.body.detail", _WORDING),
    Explained("19-events-errors/bad thread id (2)", "response.*", "A thread's id that is none is refused, with 422."),
    Explained("19-events-errors/agent.getTree after a run", "response.body.*", "The newest run's tree is known here."),
    Explained("19-events-errors/*state.get*", "response.body.*", _NEW_COMMAND),
    Explained("19-events-errors/*state.listCheckpoints*", "response.body.*", _NEW_COMMAND),
    Explained("19-events-errors/*state.fork*", "response.body.*", _NEW_COMMAND),
    Explained("24-events-classic/*", "response.*.metadata.user_id", "The metadata of tasks names the user, too."),
    Explained("24-events-classic/classic run (3)", "response.body.*", "The reference lost the values (its bug)."),
    Explained("24-events-classic/nested, many *", "response.events.*", _END_LAST),
    Explained("20-websocket/hitl over the socket", "response.frames.*", _END_LAST),
    Explained("20-websocket/respond over the socket", "response.frames.*", _END_LAST),
    Explained("20-websocket/a second subscription*", "response.frames.*", _SINCE),
    Explained("20-websocket/bad thread id", "response.frames.0.closed.*", "4422 tells clients not to come back."),
    Explained("20-websocket/*", "response.frames.*.event_id", _OPAQUE),
    Explained("18-events-input/hitl *", "response.events.*", _END_LAST),
    Explained("18-events-input/respond *", "response.events.*", _END_LAST),
    Explained("18-events-input/multi until it asks", "response.events.*", _END_LAST),
    Explained("18-events-input/nested interrupt, all channels", "response.events.*", _END_LAST),
    Explained("18-events-input/interrupt_before through *", "response.events.*", _END_LAST),
)

_AUTH: Final = (
    Explained("30-auth/no token on /info", "response.body.version", _ITS_OWN_VERSION),
    Explained("30-auth/no token on /info", "response.body.flags.*", "Only what this server has is announced."),
    Explained("30-auth/no token on /metrics", "response.body*", "Each server counts its own things."),
    Explained("30-auth/no token on /docs", "response.body._cut", "The page is ours."),
    Explained("30-auth/no token on /openapi.json", "response.body._cut", "The document describes more."),
    Explained("30-auth/alice gets it with its ttl", "response.body.ttl", _DEVELOPMENT_STORE_TTL),
    Explained("30-auth/alice searches assistants", "response.*", _RECORDED_BEFORE),
    Explained("30-auth/CORS: expose", "response.headers.x-pagination-total", _RECORDED_BEFORE),
    Explained("30-auth/CORS: expose", "response.body.1", _RECORDED_BEFORE),
)

EXPLAINED: Final[tuple[Explained, ...]] = (
    *_AUTH,
    *_EVERYWHERE,
    *_EVENTS,
    *_SYSTEM,
    *_ASSISTANTS,
    *_THREADS,
    *_STATE,
    *_RUNS,
    *_MULTITASK,
    *_CANCEL,
    *_STREAMS,
    *_STORE,
    *_CRONS,
    *_HOOKS,
    *_AGENTS,
)

_NO_ORDER = "An object's members have no order: the recorder answers the first question it meets, here the other one."

OF_THE_RECORDER: Final[tuple[Explained, ...]] = (
    Explained("12-interrupts/multi: resume *", "*", _NO_ORDER),
    Explained("12-interrupts/multi: thread*", "response.body.interrupts.*", _NO_ORDER),
    Explained("12-interrupts/multi: thread*", "response.body.values.log.*", _NO_ORDER),
    Explained("18-events-input/input.respond: many", "request.body.params.responses.*", _NO_ORDER),
    Explained("18-events-input/thread (2)", "response.body.values.log.*", _NO_ORDER),
    Explained("22-mcp/tools/list", "response.body*", "A list that is not empty is longer than the recorder keeps."),
)
"""Differences that lie in how the recorder works; the replay in `test_transcripts.py` does not have them."""
