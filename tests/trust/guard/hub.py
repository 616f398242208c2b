"""A hub on the loopback for the real `huggingface_hub` client, and `dudi` run against it in one process.

`python hub.py FOLDER`, with HF_ENDPOINT set, prints a JSON line for each case: its name, exit code and what was
said on stderr.
"""

import contextlib
import http.server
import io
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

ANSWERS: dict[str, tuple[int, str]] = {
    "none": (404, "RepoNotFound"),
    "private": (401, "RepoNotFound"),
    "gated": (403, "GatedRepo"),
    "gated-without-login": (401, "GatedRepo"),
    "down": (503, ""),
    "broken": (500, ""),
    "busy": (429, ""),
}
"""Repository to status and the hub's error code; any other repository has the files of `serve`."""
HOSTILE: dict[str, tuple[str, dict[str, object]]] = {
    "kernel": ("config.json", {"text_config": {"_attn_implementation": "org/kernel"}}),
    "malformed": ("config.json", {"vocab_size": "many"}),
    "leading-out": ("tokenizer_config.json", {"vocab_file": "../../secret.txt"}),
    "sharded-out": ("model.safetensors.index.json", {"weight_map": {"head": "../../x.safetensors"}, "metadata": {}}),
}
"""Repository to a file of it, and what that file says beside what it says in the others."""


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers as the hub does: errors by the repository's name, files and listings for the others."""

    files: dict[str, bytes]

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        repository = self.path.partition("org/")[2].partition("/")[0].partition("?")[0]
        name = self.path.partition("/resolve/")[2].partition("/")[2].partition("?")[0]
        status, code, body = 200, "", b""
        if repository in ANSWERS:
            (status, code), body = ANSWERS[repository], b'{"error": "no"}'
        elif self.path.startswith("/api/"):
            listing = [
                {"type": "file", "path": name, "oid": "0" * 40, "size": 1000} for name in self._names(repository)
            ]
            siblings = [{"rfilename": name} for name in self._names(repository)]
            info = {"id": f"org/{repository}", "sha": "0" * 40, "siblings": siblings, "private": False, "tags": []}
            body = json.dumps(listing if "/tree/" in self.path else info).encode()
        elif repository in HOSTILE and name == HOSTILE[repository][0]:
            body = json.dumps({**json.loads(self.files.get(name, b"{}")), **HOSTILE[repository][1]}).encode()
        elif name in self.files:
            body = self.files[name]
        else:
            status, code, body = 404, "EntryNotFound", b'{"error": "no such file"}'
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{abs(hash(body))}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        if code:
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", "said the hub")
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def _names(self, repository: str) -> list[str]:
        return sorted({*self.files, *([HOSTILE[repository][0]] if repository in HOSTILE else [])})

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@contextlib.contextmanager
def serve(files: dict[str, bytes]) -> Iterator[str]:
    """The address of a hub whose good repositories hold these files."""
    handler = type("Filled", (Hub,), {"files": files})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()


def cases(folder: Path) -> dict[str, list[str]]:
    """Name of a case to the words behind `dudi`."""
    student, rows = "student=package:dudi/mini/small", f"data={folder / 'rows.jsonl'}"
    train = ["train", str(folder / "recipe.yaml"), "--output", str(folder / "run")]
    names = [*ANSWERS, "pickled", *HOSTILE]
    found = {f"student {name}": [*train, f"student=org/{name}", rows] for name in names}
    found |= {f"data {name}": [*train, student, f"data=org/{name}"] for name in [*ANSWERS, "script"]}
    teacher = ["teacher=org/none", "method=gkd", "mixing=sum"]
    found |= {"teacher none": [*train, student, rows, *teacher]}
    found |= {"eval none": ["eval", "org/none", "--output", str(folder / "eval")]}
    found |= {"plan none": ["plan", str(folder / "recipe.yaml"), "student=org/none", rows]}
    return found


def main(folder: Path) -> None:
    from dudi.program.cli import main as dudi

    for name, words in cases(folder).items():
        said, out = io.StringIO(), io.StringIO()
        try:
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(out):
                code: int | str = dudi(words)
        except BaseException as error:  # a crash is a finding, and the next cases are run too
            code = f"{type(error).__name__}: {str(error)[:300]}"
        print(json.dumps({"case": name, "code": code, "said": said.getvalue()}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
