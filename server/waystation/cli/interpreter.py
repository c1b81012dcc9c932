"""The interpreter of a server's process, set for what it does: two loops, and a large heap that stays.

Only a process that is all ours is changed like this; a program that imports Waystation keeps Python's own settings.
"""

from __future__ import annotations

import gc
import sys

_SWITCH_S = 0.0005
# Python's 700 is for scripts. A streamed token makes a few dozen objects that live until their event is sent, so a
# server would look for cycles every few tokens, and each time find none.
_YOUNG_OBJECTS = 20_000
_MIDDLE_ROUNDS = 20
_OLD_ROUNDS = 20


def share_fairly() -> None:
    """The API's and the graphs' loops share the GIL: at Python's 5 ms each hand-over could wait that long."""
    sys.setswitchinterval(_SWITCH_S)


def keep_heap() -> None:
    """Leave what the imports and the start made out of every later search for cycles. Called once, when all is open."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, _MIDDLE_ROUNDS, _OLD_ROUNDS)
