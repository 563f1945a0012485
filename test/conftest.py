"""What holds for the whole test session."""

import signal

# A shell that runs the tests in the background has SIGINT ignored, and the processes that
# the tests start and interrupt would inherit that; a handler is not inherited.
signal.signal(signal.SIGINT, signal.default_int_handler)
