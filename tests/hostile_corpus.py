"""Files that try to run code, or to lead out of their folder; each makes `MARKER` if it can.

`MODELS` change a good model's folder, `RECIPES` are recipes, `CHECKPOINTS` change a good checkpoint, `REACHES` and
`FAILING` are chat templates. Beside each stand the exit code and words of the message by which it is refused.
"""

import hashlib
import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

from dudi.files import write_json_inside

MARKER = "the-exploit-ran"


class Exploit:
    """Unpickled, it makes the marker."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.system, (f"touch '{self.marker}'",))


def evil_pickle(folder: Path) -> bytes:
    return pickle.dumps({"state": Exploit(folder / MARKER)})


def evil_module(folder: Path) -> str:
    return f"open({str(folder / MARKER)!r}, 'w').close()\n"


def edit(path: Path, **changes: object) -> None:
    """Change keys of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


# --- models


def pickled_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(evil_pickle(model))


def pickled_shard(model: Path) -> None:
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(evil_pickle(model))
    index = {"metadata": {"total_size": 1}, "weight_map": {"model.norm.weight": "pytorch_model.bin"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))


def shard_outside(model: Path) -> None:
    (model / "model.safetensors").rename(model.parent / "outside.safetensors")
    index = {"metadata": {"total_size": 1}, "weight_map": {"model.norm.weight": "../outside.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))


def pickled_adapter(model: Path) -> None:
    adapter = {"peft_type": "LORA", "base_model_name_or_path": str(model), "r": 2, "target_modules": ["q_proj"]}
    (model / "adapter_config.json").write_text(json.dumps(adapter))
    (model / "adapter_model.bin").write_bytes(evil_pickle(model))


def own_code(model: Path) -> None:
    edit(model / "config.json", model_type="evil", auto_map={"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"})
    (model / "evil.py").write_text(evil_module(model))


def own_code_of_a_known_type(model: Path) -> None:
    """transformers knows the type, and would still take the repository's class if it were told to."""
    edit(model / "config.json", auto_map={"AutoModelForCausalLM": "evil.M"}, architectures=["Evil"])
    (model / "evil.py").write_text(evil_module(model))


def own_tokenizer_code(model: Path) -> None:
    edit(model / "tokenizer_config.json", tokenizer_class="Evil", auto_map={"AutoTokenizer": ["evil.T", "evil.T"]})
    (model / "evil.py").write_text(evil_module(model))


def own_generate(model: Path) -> None:
    (model / "custom_generate").mkdir()
    (model / "custom_generate" / "generate.py").write_text(evil_module(model) + "def generate(model, **k): pass\n")


def kernel_from_the_hub(model: Path) -> None:
    edit(model / "config.json", attn_implementation="evil/kernel", _attn_implementation="evil/kernel")


def kernel_in_an_inner_field(model: Path) -> None:
    """CVE-2026-4372: before 5.3, transformers took the field from the file, and ran the code that it names."""
    edit(model / "config.json", _attn_implementation_internal="evil/kernel")


def template_names_outside(model: Path) -> None:
    """CVE-2026-9856: before 5.10, transformers saved each template under the name that the model gave it."""
    templates = [{"name": name, "template": "{{ messages[0].content }}"} for name in ("default", f"../../../{MARKER}")]
    (model / "chat_template.jinja").unlink(missing_ok=True)
    edit(model / "tokenizer_config.json", chat_template=templates)


def tokenizer_outside(model: Path) -> None:
    (model / "tokenizer.json").rename(model.parent / "secret.json")
    edit(model / "tokenizer_config.json", tokenizer_file="../secret.json", vocab_file=str(model.parent / "secret.json"))


def template_outside(model: Path) -> None:
    (model.parent / "secret.txt").write_text("a secret")
    (model / "chat_template.jinja").write_text("{% include '../secret.txt' %}")


def header(length: int, content: bytes) -> Callable[[Path], None]:
    def change(model: Path) -> None:
        (model / "model.safetensors").write_bytes(struct.pack("<Q", length) + content)

    return change


def tensors(**entries: object) -> Callable[[Path], None]:
    def change(model: Path) -> None:
        content = json.dumps(entries).encode()
        (model / "model.safetensors").write_bytes(struct.pack("<Q", len(content)) + content + b"\0" * 64)

    return change


def raw(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda model: (model / name).write_bytes(content) and None


def config(**changes: object) -> Callable[[Path], None]:
    return lambda model: edit(model / "config.json", **changes)


def tensor(begin: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


MODELS: list[tuple[str, Callable[[Path], None], int, str]] = [
    ("pickled weights", pickled_weights, 3, "pytorch_model.bin"),
    ("a pickled shard", pickled_shard, 3, "pytorch_model.bin"),
    ("a shard outside", shard_outside, 3, "../outside.safetensors"),
    ("a pickled adapter", pickled_adapter, 3, "adapter_model.bin"),
    ("code of its own", own_code, 3, "auto_map"),
    ("a kernel from the hub", kernel_from_the_hub, 3, "evil/kernel"),
    ("a kernel in an inner field", kernel_in_an_inner_field, 3, "evil/kernel"),
    ("templates whose names lead out", template_names_outside, 2, "template"),
    ("a tokenizer outside", tokenizer_outside, 3, "tokenizer_file"),
    ("a template that includes a file", template_outside, 3, "chat template"),
    ("safetensors, a header of 8 EiB", header(2**63 - 1, b"{}"), 3, "model.safetensors"),
    ("safetensors, a header longer than the file", header(1 << 20, b"{}"), 3, "model.safetensors"),
    ("safetensors, a header that is no JSON", header(4, b"evil"), 3, "model.safetensors"),
    ("safetensors, tensors that overlap", tensors(a=tensor(0, 8, [2]), b=tensor(4, 12, [2])), 3, "model.safetensors"),
    ("safetensors, a tensor past the end", tensors(a=tensor(0, 1 << 40, [1 << 38])), 3, "model.safetensors"),
    ("safetensors, an overflow", tensors(a=tensor(0, 64, [2**62, 2**62])), 3, "model.safetensors"),
    ("safetensors, an unknown type", tensors(a=tensor(0, 8, [2], "PICKLE")), 3, "model.safetensors"),
    ("safetensors, other tensors", tensors(a=tensor(0, 64, [16])), 3, "missing from its files"),
    ("safetensors that is a pickle", raw("model.safetensors", b"\x80\x04]."), 3, "model.safetensors"),
    ("safetensors that is empty", raw("model.safetensors", b""), 3, "model.safetensors"),
    ("a config that is no JSON", raw("config.json", b"{"), 3, "config.json"),
    ("a config that is a list", raw("config.json", b"[]"), 3, "config.json"),
    ("a tokenizer that is no JSON", raw("tokenizer.json", b"{"), 2, "tokenizer"),
    ("a tokenizer that is a pickle", raw("tokenizer.json", b"\x80\x04]."), 2, "tokenizer"),
    ("sizes that are text", config(hidden_size="__import__('os')"), 3, "config.json"),
]
"""(what it is, what makes it of a good model's folder, exit code, words of the message)."""

PASSED_OVER: list[tuple[str, Callable[[Path], None]]] = [
    ("code of its own, of a known type", own_code_of_a_known_type),
    ("a tokenizer with code of its own", own_tokenizer_code),
    ("a generate of its own", own_generate),
]
"""Models that bring code beside what transformers has built in: they are read without it."""

# --- recipes

STUDENT = "student: {{{{model: {{folder}}/model, {}}}}}\ndata: cldr"
TRUSTED_TEACHER = STUDENT.format("dtype: auto") + "\nteacher: {{model: {folder}/model, trust_remote_code: true}}"

RECIPES: list[tuple[str, str, int, str]] = [
    ("a python tag", "a: !!python/object/apply:os.system ['touch {marker}']", 2, "tag"),
    ("a python name", "method: !!python/name:os.system", 2, "tag"),
    ("a tag of its own", "method: !evil sft", 2, "tag"),
    ("a billion laughs", "a: &a [x, x]\nb: &b [*a, *a]\n" + "".join(
        f"{chr(c)}: &{chr(c)} [*{chr(c - 1)}, *{chr(c - 1)}]\n" for c in range(ord("c"), ord("z"))), 2, "too many"),
    ("extends a file that is no recipe", "extends: /etc/passwd", 2, "/etc/passwd"),
    ("extends a device that never ends", "extends: /dev/zero", 2, "/dev/zero"),
    ("extends a pipe that never opens", "extends: {folder}/pipe", 2, "pipe"),
    ("extends itself", "extends: recipe.yaml", 2, "circle"),
    ("turns remote code on", STUDENT.format("trust_remote_code: true"), 2, "trust_remote_code"),
    ("turns it on for the teacher", TRUSTED_TEACHER, 2, "trust_remote_code"),
    ("a package that is imported", "student: package:evil_package.inside\ndata: cldr", 2, "evil_package.inside"),
    ("a package, and out of it", "student: package:dudi/../../model\ndata: cldr", 2, ".."),
    ("a kernel from the hub", STUDENT.format("attn_implementation: evil/kernel"), 2, "evil/kernel"),
    ("a template that is a device", STUDENT.format("chat_template: /dev/zero"), 2, "/dev/zero"),
    ("a folder with a dataset script", "student: {folder}/model\ndata: {folder}/script", 2, "no data files"),
    ("a dataset script", "student: {folder}/model\ndata: {folder}/script/script.py", 2, "cannot read '.py'"),
]  # fmt: skip
"""(what it is, the recipe, exit code, words of the message); `{folder}` holds a model with code of its own."""

# --- chat templates

REACHES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__class__.__base__.__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.system('touch {marker}') }}",
    "{{ self.__init__.__globals__['__builtins__']['__import__']('os').system('touch {marker}') }}",
    "{{ lipsum.__globals__['os'].popen('touch {marker}').read() }}",
    "{{ raise_exception.__globals__['__builtins__'] }}",
    "{{ ''|attr('__class__')|attr('__mro__') }}",
    "{{ '{0.__class__.__mro__}'.format('') }}",
    "{{ ('{0.__class__.__init__.__globals__}'|attr('format'))(messages) }}",
    "{{ [''.format_map]|map('attr', '__self__')|map('attr', '__class__')|list }}",
    "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
    "{{ messages.append({'role': 'system', 'content': 'x'}) }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% extends '/etc/passwd' %}",
]
"""Ways to Python, to files, or to change what is rendered. None may print what it found, either."""

FAILING = [
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{{ raise_exception('no') }}",
    "{% if %}",
]
"""Ways to fail."""

# --- checkpoints


def reseal(checkpoint: Path, **files: Path) -> None:
    """Write a manifest that is right about everything in the folder: whoever can write there can do that."""
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest.pop("sha256")
    listed = {path.relative_to(checkpoint).as_posix(): path for path in checkpoint.rglob("*") if path.is_file()}
    del listed["manifest.json"]
    manifest["files"] = {
        name: {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for name, path in {**listed, **files}.items()
    }
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    write_json_inside(checkpoint / "manifest.json", manifest | {"sha256": digest})


def pickle_beside(name: str, sealed: bool = False) -> Callable[[Path], None]:
    def change(checkpoint: Path) -> None:
        (checkpoint / name).write_bytes(evil_pickle(checkpoint))
        if sealed:
            reseal(checkpoint)

    return change


def pickle_for_weights(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "pytorch_model.bin").write_bytes(evil_pickle(checkpoint))
    reseal(checkpoint)


def linked_weights(checkpoint: Path) -> None:
    outside = checkpoint.parent / "outside.safetensors"
    (checkpoint / "model.safetensors").rename(outside)
    (checkpoint / "model.safetensors").symlink_to(outside)


def manifest_outside(checkpoint: Path) -> None:
    secret = checkpoint.parent / "secret"
    secret.write_text("a secret")
    reseal(checkpoint, **{"../secret": secret})


CHECKPOINTS: list[tuple[str, Callable[[Path], None], int, str]] = [
    ("optimizer.pt", pickle_beside("optimizer.pt"), 3, "optimizer.pt"),
    ("optimizer.pt, in the manifest", pickle_beside("optimizer.pt", sealed=True), 3, "optimizer.pt"),
    ("rng_state.pth", pickle_beside("rng_state.pth"), 3, "rng_state.pth"),
    ("rng_state.pth, in the manifest", pickle_beside("rng_state.pth", sealed=True), 3, "rng_state.pth"),
    ("scaler.pt", pickle_beside("scaler.pt"), 3, "scaler.pt"),
    ("training_args.bin", pickle_beside("training_args.bin", sealed=True), 3, "training_args.bin"),
    ("pickled weights", pickle_for_weights, 3, "pytorch_model.bin"),
    ("weights that are a link", linked_weights, 3, "model.safetensors"),
    ("a manifest that leads out", manifest_outside, 3, "../secret"),
]
"""(what it is, what makes it of a good checkpoint, exit code, words of the message)."""
