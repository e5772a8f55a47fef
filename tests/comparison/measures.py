"""What is measured, each in turns: no server has the quiet minutes of the machine for itself.

Each measure returns rows for the table; every figure behind them goes into the record.
"""

from .mailboxes import commands, download, login, update
from .memory import idle, memory
from .sessions import sessions
from .standalone import standalone, standalone_idle
from .tls import tls

MEASURES = {1: sessions, 2: login, 3: download, 4: commands, 5: memory, 6: idle, 7: update, 8: tls,
            9: standalone, 10: standalone_idle}
