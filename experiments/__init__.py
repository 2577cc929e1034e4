"""One paper task a file, and the programs that run them."""

import signal
import sys

# `python -m experiments.NAME` comes here first, and has no name yet. Until
# `launch.run` takes over, Ctrl-C ends it without a traceback: the imports take
# seconds. A notebook, and whoever imports us, keeps Python's own handler.
if sys.argv[0] == "-m":
  signal.signal(signal.SIGINT, signal.SIG_DFL)
