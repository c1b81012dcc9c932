"""What a client may send about assistants. Validated once, here."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
)
from pydantic import WithJsonSchema as JsonSchema
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

JSONObject = dict[str, Any]
AssistantField = Literal[
    "assistant_id",
    "graph_id",
    "name",
    "description",
    "config",
    "context",
    "created_at",
    "updated_at",
    "metadata",
    "version",
]


class Omissible:
    """Marks a member that may be left out, which reads as None here, and may not be null where it is given."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(_refuse_null, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        described = handler(schema)
        options = [option for option in described.pop("anyOf", []) if option != {"type": "null"}]
        return {**described, **options[0]} if len(options) == 1 else {**described, "anyOf": options}


def _refuse_null(value: Any) -> Any:
    if value is None:
        raise PydanticCustomError("null", "Input should not be null")
    return value


def _integral(value: Any) -> Any:
    """JSON Schema's integers include 1.0."""
    return int(value) if type(value) is float and value.is_integer() else value


def _assistant_id(value: str) -> str:
    try:
        return str(UUID(value))
    except ValueError:
        raise PydanticCustomError("uuid_of", "Invalid assistant ID: must be a UUID") from None


AssistantUuid = Annotated[str, AfterValidator(_assistant_id), JsonSchema({"type": "string", "format": "uuid"})]
Name = Annotated[str, Field(max_length=1024)]
Text = Annotated[str, Field(max_length=65_536)]
Integral = BeforeValidator(_integral)
Limit = Annotated[int, Field(ge=1, le=1000), Integral]
Offset = Annotated[int, Field(ge=0, le=2**31 - 1), Integral]
Positive = Annotated[int, Field(ge=1, le=2**31 - 1), Integral]
MaybeObject = Annotated[JSONObject | None, Omissible()]


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class AssistantConfig(_Body):
    """Configuration of an assistant's runs; other members are kept as they are."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    tags: Annotated[list[str] | None, Omissible()] = None
    recursion_limit: Annotated[Positive | None, Omissible()] = None
    configurable: MaybeObject = None


MaybeConfig = Annotated[AssistantConfig | None, Omissible()]


class AssistantCreate(_Body):
    """A new assistant: a graph with a configuration of its own."""

    graph_id: Name
    assistant_id: Annotated[AssistantUuid | None, Omissible()] = None
    config: MaybeConfig = None
    context: MaybeObject = None
    metadata: MaybeObject = None
    name: Annotated[Name | None, Omissible()] = None
    description: Text | None = None
    if_exists: Literal["raise", "do_nothing"] = "raise"


class AssistantPatchBody(_Body):
    """What changes: metadata is merged member by member, the others replace."""

    graph_id: Annotated[Name | None, Omissible()] = None
    config: MaybeConfig = None
    context: MaybeObject = None
    metadata: MaybeObject = None
    name: Annotated[Name | None, Omissible()] = None
    description: Annotated[Text | None, Omissible()] = None


class AssistantCount(_Body):
    """Which assistants: metadata contains, the graph is, the name has in it."""

    metadata: MaybeObject = None
    graph_id: Annotated[Name | None, Omissible()] = None
    name: Annotated[Name | None, Omissible()] = None


class AssistantSearch(AssistantCount):
    """A page of them."""

    limit: Limit = 10
    offset: Offset = 0
    sort_by: Literal["assistant_id", "created_at", "updated_at", "name", "graph_id"] = "created_at"
    sort_order: Literal["asc", "desc"] = "desc"
    select: Annotated[list[AssistantField] | None, Omissible()] = None


class VersionsBody(_Body):
    """A page of an assistant's versions."""

    metadata: MaybeObject = None
    limit: Limit = 10
    offset: Offset = 0


class LatestBody(_Body):
    """The version to show again."""

    version: Positive


class AssistantObject(BaseModel):
    """A graph with configuration, metadata and a name; versioned."""

    assistant_id: AssistantUuid
    graph_id: str
    config: JSONObject
    context: JSONObject
    metadata: JSONObject
    name: str
    created_at: str
    updated_at: str
    version: int
    description: str | None


class SelectedAssistant(BaseModel):
    """An assistant, or the selected members of it."""

    assistant_id: AssistantUuid = ""
    graph_id: str = ""
    config: JSONObject = {}
    context: JSONObject = {}
    metadata: JSONObject = {}
    name: str = ""
    created_at: str = ""
    updated_at: str = ""
    version: int = 1
    description: str | None = None


class AssistantVersion(BaseModel):
    """An assistant as it was in one version; `created_at` is the version's."""

    assistant_id: AssistantUuid
    version: int
    graph_id: str
    config: JSONObject
    context: JSONObject
    metadata: JSONObject
    created_at: str
    name: str
    description: str | None


class GraphSchemas(BaseModel):
    """JSON Schemas of a graph; null for one that cannot be made."""

    input_schema: JSONObject | None
    output_schema: JSONObject | None
    state_schema: JSONObject | None
    config_schema: JSONObject | None
    context_schema: JSONObject | None


class AssistantSchemas(GraphSchemas):
    """The schemas of an assistant's graph."""

    graph_id: str


class GraphDrawing(BaseModel):
    """Nodes and edges of a graph."""

    nodes: list[JSONObject]
    edges: list[JSONObject]
