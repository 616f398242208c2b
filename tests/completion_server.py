"""A real HTTP server with OpenAI's completions over a tiny model, as vLLM answers them; it can be told to misbehave."""

import contextlib
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch

MAX_LOGPROBS = 20


class Refused(Exception):
    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class Served:
    """What the server does, and what it has seen.

    Attributes:
        model: Whose probabilities it tells.
        name: Under which it is served.
        max_logprobs: As `vllm serve --max-logprobs`.
        key: The API key that it wants, or None.
        failures: Codes (or "cut": the line goes dead) of the next requests, before it answers again.
        bodies: Of the completions that it has answered.
        left: Completions after which it dies; None: it lives.
    """

    def __init__(self, model, name="teacher", max_logprobs=10**6, key=None, longest=4096):
        self.model, self.name, self.max_logprobs, self.key, self.longest = (
            model.eval(),
            name,
            max_logprobs,
            key,
            longest,
        )
        self.failures, self.bodies, self.left = [], [], None
        self.spoil = lambda answer: answer
        self.lock = threading.Lock()

    @torch.no_grad()
    def complete(self, body):
        k = body.get("prompt_logprobs")
        if k is not None and k > self.max_logprobs:
            raise Refused(
                400, f"Requested prompt logprobs of {k}, which is greater than max allowed: {self.max_logprobs}"
            )
        if body["model"] != self.name:
            raise Refused(404, f"The model `{body['model']}` does not exist.")
        choices = []
        for index, prompt in enumerate(body["prompt"]):
            if len(prompt) + body["max_tokens"] > self.longest:
                raise Refused(400, f"This model's maximum context length is {self.longest} tokens.")
            choice = {"index": index, "prompt_logprobs": None if k is None else self.prompt_logprobs(prompt, k)}
            if body.get("return_token_ids"):
                choice["token_ids"] = self.written(prompt, body)
            choices.append(choice)
        return self.spoil({"choices": choices[::-1]})  # clients go by the index

    def prompt_logprobs(self, prompt, k):
        log_probs = self.model(torch.tensor([prompt])).logits[0].float().log_softmax(-1)
        found = [None]
        for row, label in zip(log_probs, prompt[1:], strict=False):
            ids = [label, *(token for token in row.topk(k).indices.tolist() if token != label)]
            rank = int((row > row[label]).sum()) + 1
            ids, values = ids if rank > k else ids[:k], row.tolist()  # a number at a time took most of a test
            found.append({str(i): {"logprob": values[i], "rank": 1, "decoded_token": "?"} for i in ids})
        return found

    def written(self, prompt, body):
        generator = torch.Generator().manual_seed(body["seed"])
        ids = list(prompt)
        for _ in range(body["max_tokens"]):
            logits = self.model(torch.tensor([ids])).logits[0, -1].float()
            for token, bias in (body.get("logit_bias") or {}).items():
                logits[int(token)] += bias
            if body["temperature"]:
                ids.append(int(torch.multinomial((logits / body["temperature"]).softmax(-1), 1, generator=generator)))
            else:
                ids.append(int(logits.argmax()))
            if ids[-1] in body["stop_token_ids"]:
                break
        return ids[len(prompt) :]


def handler_of(served):
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            self.answered(lambda: {"data": [{"id": served.name, "max_model_len": served.longest}]})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))

            def work():
                with served.lock:
                    if served.left is not None:
                        served.left -= 1
                    answer = served.complete(body)
                    served.bodies.append(body)
                return answer

            self.answered(work)

        def answered(self, work):
            if served.left == 0 or (served.failures and served.failures[0] == "cut"):
                served.failures[:1] = []
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            if served.failures:
                return self.reply(served.failures.pop(0), {"error": {"message": "not now"}})
            if served.key is not None and self.headers.get("Authorization") != f"Bearer {served.key}":
                return self.reply(401, {"error": "Unauthorized"})
            try:
                self.reply(200, work())
            except Refused as error:
                self.reply(error.code, {"error": {"message": str(error), "code": error.code}})

        def reply(self, code, content):
            data = json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def finish(self):
            with contextlib.suppress(OSError, ValueError):
                super().finish()

    return Handler


@contextlib.contextmanager
def serving(model, **options):
    """The address of a server in a thread, and what it does."""
    served = Served(model, **options)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(served))
    server.handle_error = lambda *_: None  # a line that is cut on purpose
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
