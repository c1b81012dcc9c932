"""What can go wrong in the database layer. It knows nothing of HTTP.

DatabaseError
├── Fenced             the attempt that wrote is no longer the current one
├── MigrationError     the schema cannot be brought, or is not, where it must be
└── EmbeddedError      the embedded Postgres cannot be installed, started or reached
"""


class DatabaseError(Exception):
    """Base of everything this package raises itself."""


class Fenced(DatabaseError):
    """A write named an attempt that is no longer the run's current one; nothing was written.

    The worker that gets this must stop the run's task at once and write nothing more for it.
    """


class MigrationError(DatabaseError):
    """The schema is newer than this version, was edited after it was applied, or a migration failed."""


class EmbeddedError(DatabaseError):
    """The embedded Postgres cannot be started; the message says what to do."""
