"""What the tests that start a server of their own share."""

import socket
import time
import urllib.request


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait_until_healthy(process, port, seconds):
    """Until the server answers; one that ends, or never does, fails the test."""
    for _ in range(seconds):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
            return
        except OSError:
            assert process.poll() is None
            time.sleep(1)
    raise AssertionError(f"no answer within {seconds} s")
