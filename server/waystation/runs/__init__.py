"""Use cases: what a client may ask for, from admission of a run to the state of a thread. No HTTP in here."""
