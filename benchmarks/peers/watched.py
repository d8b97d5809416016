"""Run a command from a process that is small itself (Linux counts a parent's memory until exec as its child's), and
print what it took: {"seconds", "cpu", "rss"} (wall, processor time of all threads, peak bytes).

python -S watched.py COMMAND...
"""

import os
import sys
import time

start = time.monotonic()
child = os.fork()
if child == 0:
    os.dup2(2, 1)  # what it says is not the answer
    os.execvp(sys.argv[1], sys.argv[1:])
_, status, usage = os.wait4(child, 0)
seconds = time.monotonic() - start
print(f'{{"seconds": {seconds}, "cpu": {usage.ru_utime + usage.ru_stime}, "rss": {usage.ru_maxrss * 1024}}}')
sys.exit(os.waitstatus_to_exitcode(status))
