"""Waystation: LangGraph graphs behind the LangGraph Platform API, on your own Postgres."""

__version__ = "0.1.0"
