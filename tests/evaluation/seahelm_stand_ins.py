"""A checkout that looks like SEA-HELM, and a model's server: real programs, small ones, for the tests of the driver."""

import json
from pathlib import Path

EVALUATION = '''
"""Asks the server as SEA-HELM does, keeps answers, writes results after each task, and a failed task as 0."""
import datetime, glob, json, os, sys, time, urllib.request
from src.serving import Gone

CONFIGS = json.load(open("seahelm_tasks/config.yaml"))


class SeaHelmEvaluation:
    @staticmethod
    def create_seahelm_run_folders(output_dir, model_name, run_number):
        for part in ("inferences", "results", "configs", "logs"):
            os.makedirs(f"{output_dir}/{os.path.basename(model_name)}/run_{run_number}/{part}", exist_ok=True)

    def __init__(self, llm, tasks_configuration, output_dir, model_name, *, task_config_file, skip_task, limit, seed,
                 no_batching, tokenize_prompts, run_number, datetime):
        self.tasks = json.load(open(task_config_file))[tasks_configuration]
        self.limit, self.seed, self.model = limit, seed, os.path.basename(model_name)
        self.base = f"{output_dir}/{self.model}/run_{run_number}"
        self.results = f"{self.base}/results/{self.model}_seahelm_results_{datetime}.json"

    def run_evaluation(self, llm, use_cached_results):
        assert use_cached_results
        metrics, judged = {}, []
        for lang, names in self.tasks.items():
            for name in names:
                if CONFIGS[name].get("judge"):
                    self.answers(llm, lang, name)
                    judged.append((lang, name))
                else:
                    self.write(metrics, llm, lang, name)
        if judged:
            llm.cleanup()
            for lang, name in judged:
                self.write(metrics, llm, lang, name)
        if "breaks-at-the-end" in str(self.tasks):
            raise KeyError("pragmatic-single")
        metrics["total"] = 0.0
        json.dump(metrics, open(self.results, "w"))

    def write(self, metrics, llm, lang, name):
        own = metrics.setdefault(lang, {}).setdefault(CONFIGS[name]["competency"], {})
        own[name] = {"inference_time_taken": [0.1], "is_cached": [False]}
        metric = CONFIGS[name]["metric"]
        try:
            if name == "gated" and not os.path.exists("seahelm_tasks/gate_open"):
                raise OSError("no such dataset")
            if name == "crash":
                sys.exit("out of memory in SEA-HELM")
            answers = self.answers(llm, lang, name)
            own[name][metric] = sum(len(answer) for answer in answers) / len(answers)
        except (OSError, Gone):
            own[name].update({metric: 0, "error": "Failed to run evaluation for task"})
        json.dump(metrics, open(self.results, "w"))

    def answers(self, llm, lang, name):
        group = CONFIGS[name].get("aggregation_group") or name
        file = f"{self.base}/inferences/{lang}/{group}/{self.model}_{name}_{lang}_turn1_batch_response.jsonl"
        os.makedirs(os.path.dirname(file), exist_ok=True)
        count = self.limit or 3
        if os.path.exists(file) and len(open(file).readlines()) == count:
            return [json.loads(line)["responses"] for line in open(file)]
        answers = [llm.ask(f"{lang}/{name}/{number}", self.seed) for number in range(count)]
        with open(file, "w") as out:
            for number, answer in enumerate(answers):
                error = "no answer" if name == "half" and number == 0 else None
                out.write(json.dumps({"responses": answer, "errors": error}) + "\\n")
        return answers
'''

SERVING = """
import json, time, urllib.request


class Gone(Exception):
    pass


class Client:
    def __init__(self, model_name, base_url, **rest):
        self.model, self.url = model_name, base_url

    def ask(self, text, seed):
        body = {"model": self.model, "messages": [{"role": "user", "content": text}], "seed": seed, "max_tokens": 16}
        request = urllib.request.Request(self.url + "/chat/completions", json.dumps(body).encode())
        for attempt in range(600):  # as SEA-HELM: a dead server is asked again and again
            try:
                return json.load(urllib.request.urlopen(request))["choices"][0]["message"]["content"]
            except OSError:
                time.sleep(0.5)
        raise Gone


def get_serving_class(model_type, model_name, is_base_model, seed, **args):
    assert model_type == "local_openai"
    return Client(model_name, **args)
"""

LOGGER = """
import logging


def setup_root_logger(filepath):
    logging.basicConfig(filename=filepath)
"""

SERVER = '''
"""Stands at `vllm.entrypoints.openai.api_server`; $STAND_IN (JSON) says how it behaves."""
import argparse, json, os, subprocess, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

parser = argparse.ArgumentParser()
for word in ("--model", "--served-model-name", "--host", "--port"):
    parser.add_argument(word, required=True)
given, _ = parser.parse_known_args()
how = json.loads(os.environ.get("STAND_IN", "{}"))
print("loading", given.model, flush=True)
if "leave" in how:
    sys.exit("no room on the device")
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
if how.get("pids"):
    with open(how["pids"], "a") as out:
        out.write(f"{os.getpid()} {child.pid}\\n")
asked = 0


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *words):
        pass

    def reply(self, code, content):
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        silent = how.get("never_healthy") or asked > how.get("sick_after", 10**9)
        self.reply(503 if silent and self.path == "/health" else 200, {})

    def do_POST(self):
        global asked
        asked += 1
        if asked > how.get("die_after", 10**9):
            print("RuntimeError: CPU Generator does not use offset", flush=True)
            os._exit(3)
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if request["model"] != given.served_model_name:
            return self.reply(404, {"detail": "no such model"})
        if how.get("questions"):
            with open(how["questions"], "a") as out:
                out.write(request["messages"][0]["content"] + "\\n")
        text = "x" * (10 + request["seed"])
        if how.get("echo"):
            text = request["messages"][0]["content"] + text
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        self.reply(200, {"choices": [{"message": {"content": text}}], "usage": usage})


ThreadingHTTPServer((given.host, int(given.port)), Handler).serve_forever()
'''

LANGUAGES = ("id", "th")


def task(competency, metric="normalized_accuracy", group=None, judge=None, logprobs=False, languages=LANGUAGES):
    """One entry of a `config.yaml`."""
    entry = {"competency": competency, "metric": metric, "languages": {code: {"max_tokens": 16} for code in languages}}
    if group:
        entry["aggregation_group"] = group
    if judge:
        entry.update(use_judges=True, judge={"judge_model_type": judge, "judge_model_name": "a/judge"})
    return {**entry, "use_logprobs": True} if logprobs else entry


CONFIG = {
    "qa": task("nlu", "normalized_f1"),
    "sentiment": task("nlu"),
    "guard_prompt": task("safety", group="guard"),
    "guard_response": task("safety", group="guard", languages=("id",)),
    "gated": task("nlr"),
    "half": task("knowledge"),
    "crash": task("knowledge"),
    "breaks-at-the-end": task("knowledge"),
    "translation": task("nlg", "normalized_metricx", judge="metricx"),
    "mt-bench": task("multi-turn", "score", judge="vllm"),
    "kalahi": task("cultural", languages=("id",)),
    "mp-r": task("linguistic-diagnostics", languages=("id",)),
    "pragmatic-single": task("linguistic-diagnostics", group="pragmatics", languages=("id",)),
    "pragmatic-pair": task("linguistic-diagnostics", group="pragmatics", languages=("id",)),
    "syntax-criteria": task("linguistic-diagnostics", "average_criteria_score", judge="vllm", languages=("id",)),
    "qa-logprobs": {**task("nlu", logprobs=True), "languages": "${qa.languages}", "competency": "${qa.competency}"},
}
SETS = {
    "seahelm": {"id": ["qa", "guard", "mt-bench"], "th": ["qa", "guard"]},
    "logprobs": {"id": ["qa-logprobs"]},
}


def make_checkout(folder: Path) -> Path:
    """A folder that passes for a checkout of SEA-HELM."""
    files = {
        "pyproject.toml": '[project]\nversion = "9.9.9"\n',
        "src/seahelm_evaluation.py": EVALUATION,
        "src/base_logger.py": LOGGER,
        "src/serving/__init__.py": SERVING,
        "seahelm_tasks/config.yaml": json.dumps(CONFIG),
        "seahelm_tasks/task_config.yaml": json.dumps(SETS),
    }
    write(folder, files)
    return folder


def make_server(folder: Path) -> Path:
    """A folder for PYTHONPATH with a package `vllm` that is a small HTTP server."""
    empty = {f"vllm{inner}/__init__.py": "" for inner in ("", "/entrypoints", "/entrypoints/openai")}
    write(folder, {**empty, "vllm/entrypoints/openai/api_server.py": SERVER})
    return folder


def make_model(folder: Path, weights: bytes = b"weights") -> Path:
    """A folder with the files of a checkpoint."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "generation_config.json").write_text(json.dumps({"temperature": 0.6, "do_sample": True, "bos_id": 1}))
    return folder


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
