"""Chat models of providers, their errors and their streams."""

from waystation_guards.providers.errors import Failure, class_of_answer, classify
from waystation_guards.providers.models import ModelSettings, Timeouts, chat_model
from waystation_guards.providers.whole_streams import StreamRules, whole_astream, whole_stream, with_whole_streams

__all__ = [
    "Failure",
    "ModelSettings",
    "StreamRules",
    "Timeouts",
    "chat_model",
    "class_of_answer",
    "classify",
    "whole_astream",
    "whole_stream",
    "with_whole_streams",
]
