"""A process that has imported everything once and forks a child for each run of the real command line.

Importing torch and transformers costs more than a tiny run does. A child is a process like any other: it calls the
command line's `main` with the words of a command line, its output goes to a file, and a SIGKILL ends it in the middle
of whatever it does. Requests and answers are JSON, a line each, on standard input and output.
"""

import gc
import json
import os
import signal
import sys
import time


def preload():
    """What every run imports, and nothing that would count as having begun one."""
    import datasets  # noqa: F401
    import torch

    import dudi.distill.trainer
    import dudi.program.train  # noqa: F401
    from dudi.languages.detect import detect
    from dudi.languages.registry import LANGUAGES

    torch.set_num_threads(1)
    detect("a sentence in English, long enough to be told", list(LANGUAGES))
    gc.collect()
    gc.freeze()  # a child's collections need not walk what was imported here


def child(request):
    """Run one command line in this process, which is a fork, and leave with its exit code."""
    os.setsid()
    out = os.open(request["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    for number, target in ((null, 0), (out, 1), (out, 2)):
        os.dup2(number, target)
    os.environ.update(request["env"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    import plants

    from dudi.program.cli import main

    sys.argv = ["dudi", *request["words"]]
    for name, value in request["plant"].items():
        getattr(plants, name)(value)
    code = 1
    try:
        code = main()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(pid, seconds):
    """The child's exit code, negative for a signal; None if it still runs."""
    end = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            return None
        time.sleep(0.005)


def main():
    preload()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "words" in request:
            pid = os.fork()
            if pid == 0:
                child(request)
            answer = {"pid": pid}
        else:
            answer = {"code": wait(request["wait"], request["seconds"])}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
