"""Guards for LangGraph programs: budgets, failover, rate limits. They need no server and no database of Waystation."""
