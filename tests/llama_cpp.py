"""llama.cpp itself, out of the package xllamacpp: what it makes of a GGUF file."""

import json
import urllib.request
from pathlib import Path

import pytest


class LlamaCpp:
    """A file, loaded by llama.cpp, on one thread."""

    def __init__(self, path: Path, tokens: int = 512):
        library = pytest.importorskip("xllamacpp", reason="llama.cpp is not installed: pip install xllamacpp")
        params = library.CommonParams()
        params.model.path = str(path)
        params.n_ctx, params.n_parallel, params.n_gpu_layers = tokens, 1, 0
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        params.warmup, params.verbosity = False, 0
        params.hostnames, params.port = ["127.0.0.1"], 0
        self.server = library.Server(params)

    def tokenize(self, text: str) -> list[int]:
        """A text's tokens, special ones as such, nothing added."""
        return self._ask("tokenize", {"content": text, "add_special": False, "parse_special": True})["tokens"]

    def answer(self, prompt: list[int], most: int) -> list[int]:
        """Tokens of a greedy answer."""
        wanted = {"prompt": prompt, "n_predict": most, "temperature": 0, "cache_prompt": False, "return_tokens": True}
        return self._ask("completion", wanted)["tokens"]

    def _ask(self, what, wanted):
        request = urllib.request.Request(
            f"{self.server.listening_address}/{what}",
            json.dumps(wanted).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)
