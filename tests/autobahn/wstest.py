"""wstest with more patience.  Runs under the Python 2.7 of setup.sh, with wstest's own arguments.

The suite gives a peer one second for an answer, for a Close and for the end of the connection, and
then fails the case.  A machine that is busy with something else may stall for longer, and a case
must not fail by that: here what is awaited may take half a minute.  A peer that answers takes no
longer for it.

The cases 6.4.* look whether invalid UTF-8 is refused before the end of the message: their pause
behind it is three seconds.  It is over at once where the peer does refuse.
"""
import sys

from autobahn.websocket import protocol
from autobahntestsuite import fuzzing, wstest

PATIENCE = 30.
FAIL_FAST = 3.


def patient(cls):
    reset = cls.resetProtocolOptions

    def later(self):
        reset(self)
        self.openHandshakeTimeout = self.closeHandshakeTimeout = self.serverConnectionDropTimeout = PATIENCE

    cls.resetProtocolOptions = later


for factory in (protocol.WebSocketServerFactory, protocol.WebSocketClientFactory):
    patient(factory)

kill_after, continue_later = fuzzing.FuzzingProtocol.killAfter, fuzzing.FuzzingProtocol.continueLater
fuzzing.FuzzingProtocol.killAfter = lambda self, _: kill_after(self, PATIENCE)
fuzzing.FuzzingProtocol.continueLater = lambda self, delay, then, tag=None: continue_later(
    self, max(delay, FAIL_FAST) if tag == "B" else delay, then, tag)

if __name__ == "__main__":
    sys.exit(wstest.run())
