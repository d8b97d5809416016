"""How fast this machine reads its memory: `python lm_bandwidth_worker.py JOB.json RESULT.json`.

Of JOB.json, "threads" and "seconds" count; RESULT.json has {"bytes_per_second": the best pass's}: a neighbour only ever
lowers it. A pass looks for a byte that is not there (the C library's memchr), each thread in its share of a buffer that
no cache holds. Only the standard library is needed.
"""

from __future__ import annotations

import ctypes
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from harness import answer

BYTES = 1 << 28  # of the buffer
FILL, SOUGHT = 1, 2


def work(job: dict[str, Any]) -> dict[str, Any]:
    """Do the job; the content of RESULT.json."""
    threads, share = job["threads"], BYTES // job["threads"]
    search = ctypes.CDLL(None).memchr  # without Python's lock
    search.argtypes, search.restype = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t), ctypes.c_void_p
    buffer = ctypes.create_string_buffer(share * threads)
    ctypes.memset(buffer, FILL, share * threads)  # pages that nobody wrote to are all the same one
    starts = [ctypes.addressof(buffer) + share * number for number in range(threads)]
    best, begin = 0.0, time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        while not best or time.perf_counter() - begin < job["seconds"]:
            start = time.perf_counter()
            if any(pool.map(lambda at: search(at, SOUGHT, share), starts)):
                raise ValueError("memory changed while it was read")
            best = max(best, share * threads / (time.perf_counter() - start))
    return {"runtime": {"name": "memchr", "version": ""}, "threads": threads, "bytes_per_second": best}


if __name__ == "__main__":
    answer(work, sys.argv[1], sys.argv[2])
