"""Providers on 127.0.0.1 that can be told to fail: OpenAI's chat completions and Responses, Azure's, Anthropic's.

    with FaultServer() as provider:                       # in a thread of its own: sync and async clients, many loops
        model = ChatOpenAI(model="m", api_key="k", base_url=provider.openai, max_retries=0)
        ChatAnthropic(model="m", api_key="k", base_url=provider.anthropic)
        AzureChatOpenAI(azure_deployment="m", api_version="2024-10-21", api_key="k", azure_endpoint=provider.azure)
        provider.script("rate_limit", Plan("cut", after=2), "ok")      # one request each, then the default
        provider.always(Plan("ok", text="a b c", pause_s=0.01, tool_calls=(("search", {"q": "x"}),)))
        east = provider.target("east"); provider.urls("east").openai    # endpoints with scripts of their own
        east.allow(requests=60, tokens=10_000, per_s=60)                # an enforced limit, told in headers
        provider.refused.openai                                         # where connections are refused
        provider.settled().bill.nano_usd; provider.requests[0].ended    # its own bill and log

One request's plan may also come in its header `x-fault`: a fault's name or a Plan as JSON. Faults and what a Plan has:
`plan.py`. Tokens: a word is one of output, four characters one of input. Key "wrong" is refused. As a process:
`python -m tests.providers`, controlled by `POST /_control/{script,always,allow,reset}?target=` and
`GET /_control/{bill,requests}`.
"""

from .bill import Bill, Charge, Tariff, price_list
from .plan import FAULTS, Plan
from .server import FaultServer, Urls
from .target import Seen, Target

__all__ = ["FAULTS", "Bill", "Charge", "FaultServer", "Plan", "Seen", "Target", "Tariff", "Urls", "price_list"]
