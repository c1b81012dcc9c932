"""The audit log: who did what, hash-chained."""

from waystation_guards.audit.audit import AuditEntry, AuditSink, audit
from waystation_guards.audit.chain import verify_log
from waystation_guards.audit.memory import MemoryAuditLog

__all__ = ["AuditEntry", "AuditSink", "MemoryAuditLog", "audit", "verify_log"]
