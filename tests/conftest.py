"""Of every tier."""

import signal

# A shell's background job ignores SIGINT, and whatever it starts inherits that: programs that the
# tests interrupt would go on.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
