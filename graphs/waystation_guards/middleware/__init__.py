"""Guards as middleware for `create_agent`. LangChain itself is needed here and nowhere else."""
