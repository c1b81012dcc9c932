"""What can go wrong in the database layer. It knows nothing of HTTP.

DatabaseError
├── DatabaseUnavailable  no connection could be had in time, or the one in use was lost
├── Fenced               the attempt that wrote is no longer the current one
├── CorruptCheckpoint    a stored value cannot be loaded, or would have to run code to be loaded
├── Undecipherable       a value was encrypted with a key that is not here, or was changed or moved
├── StoreIndexChanged    the store's vectors were made otherwise than they are now to be searched
├── SealingFailed        a value cannot be encrypted, and was not stored
├── SearchesSealed       a search asks for what is encrypted
├── BackupRefused        a backup is damaged, or cannot be restored here
├── AuditBroken          a chain of the audit log is not whole; nothing of it was removed
├── MigrationError       the schema cannot be brought, or is not, where it must be
└── EmbeddedError        the embedded Postgres cannot be installed, started or reached
"""


class DatabaseError(Exception):
    """Base of everything this package raises itself."""


class DatabaseUnavailable(DatabaseError):
    """No connection could be had in time, or it was lost while in use. Trying again later may succeed.

    When the connection was lost during a statement, the statement may or may not have taken effect.
    """


class Fenced(DatabaseError):
    """A write named an attempt that is no longer the run's current one; nothing was written.

    The worker that gets this must stop the run's task at once and write nothing more for it.
    """


class CorruptCheckpoint(DatabaseError):
    """A stored value is damaged, or of a type that is not loaded from a database. No code of it was run.

    It concerns only the thread (or store item) whose row it is.
    """


class Undecipherable(DatabaseError):
    """An encrypted value does not open: its key is not among this server's, or it was changed or moved to another row.

    It concerns only the thread, run or item whose value it is. `label` names the key.
    """

    def __init__(self, message: str, *, label: str = "") -> None:
        super().__init__(message)
        self.label = label


class StoreIndexChanged(DatabaseError):
    """The store's vectors have not the number of dimensions that the configuration says; the message says more."""


class SealingFailed(DatabaseError):
    """A value cannot be encrypted: the project's handler failed, or does not do what it has to. Nothing was stored."""


class SearchesSealed(DatabaseError):
    """A search asks for something that is encrypted in the database and cannot be compared there. The message names
    it."""


class BackupRefused(DatabaseError):
    """A backup is damaged or not complete, is of another schema, or meets what it may not replace; nothing changed."""


class AuditBroken(DatabaseError):
    """A chain of the audit log is not whole where it should have been shortened; nothing was removed."""


class MigrationError(DatabaseError):
    """The schema is newer than this version, was edited after it was applied, or a migration failed."""


class EmbeddedError(DatabaseError):
    """The embedded Postgres cannot be started; the message says what to do."""
