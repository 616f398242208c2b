"""A running vLLM behind TRL's `VLLMGeneration`, which walks the student's weights through FSDP, ZeRO-3 and adapters.

TRL's own start takes the model's checkpoint by name, and its `generate` one set of parameters for all prompts: dudi's
students may be cut, read from a GGUF or merged, and each rollout has its own seed. So both are done here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import requests
from accelerate import Accelerator
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl.generation.vllm_client import VLLMClient
from trl.generation.vllm_generation import VLLMGeneration
from trl.trainer.utils import ensure_master_addr_port
from vllm import LLM, SamplingParams

from dudi.data.chat import Tokens
from dudi.errors import ConfigError, EnvironmentFault
from dudi.models.adapters import innermost
from dudi.models.load import tied_head
from dudi.rollouts.vllm import Written

AT_ONCE = 64
"""Requests that one rank has open at a server; TRL's session keeps as many connections."""
TOKENS_A_PASS = 4096
"""vLLM's memory profile takes its larger default for a need (as in TRL)."""


@dataclasses.dataclass(frozen=True, slots=True)
class VllmOptions:
    """Where vLLM runs and how it is reached: the keys `vllm_*` of a run (docs/vllm.md), its seed and its folder.

    Times are in seconds, lengths in tokens, of a prompt and its rollout; `batch_size` rollouts are decoded together.
    """

    weight_sync: str
    server_base_url: str
    server_timeout: float
    group_port: int
    gpu_memory_utilization: float
    max_model_length: int
    enable_sleep_mode: bool
    model_impl: str
    batch_size: int
    seed: int
    folder: Path


@dataclasses.dataclass(frozen=True, slots=True)
class Student:
    """Whose weights are sent: a model with its adapters, without what distributes it, trained in a dtype of torch."""

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    accelerator: Accelerator
    dtype: str

    @property
    def inner(self) -> PreTrainedModel:
        return innermost(self.model)


class Colocated(VLLMGeneration):
    """vLLM in this process, one on each rank, which writes this rank's rollouts."""

    processed = True

    def __init__(self, student: Student, options: VllmOptions) -> None:
        self.student, self.options = student, options
        self.forgets = options.enable_sleep_mode
        limit = student.inner.config.get_text_config().to_dict().get("max_position_embeddings")
        self.longest = min(options.max_model_length, options.max_model_length if limit is None else int(limit))
        super().__init__(
            student.model,
            student.accelerator,
            student.tokenizer,
            mode="colocate",
            gpu_memory_utilization=options.gpu_memory_utilization,
            max_model_length=self.longest,
            max_num_seqs=options.batch_size,
            enable_sleep_mode=options.enable_sleep_mode,
            model_impl=options.model_impl,
        )

    def _init_vllm(self) -> None:
        """Start vLLM with the student's shape and no weights: they are sent before the first rollout."""
        on_cpu = self.accelerator.device.type == "cpu"
        # vLLM packs a CPU's head anew, and a reload would leave a tied one as it was.
        untied = {"tie_word_embeddings": False} if on_cpu else {}
        with tempfile.TemporaryDirectory() as folder, _launched(self.accelerator):
            self.student.inner.config.save_pretrained(folder)
            self.llm = LLM(
                model=folder,
                load_format="dummy",
                skip_tokenizer_init=True,
                hf_overrides=untied,
                dtype=self.student.dtype,
                distributed_executor_backend="external_launcher",
                gpu_memory_utilization=self.gpu_memory_utilization,
                max_model_len=self.max_model_length,
                max_num_seqs=self.max_num_seqs,
                max_num_batched_tokens=max(TOKENS_A_PASS, self.longest),
                enable_sleep_mode=self.enable_sleep_mode,
                model_impl=self.model_impl,
                enforce_eager=on_cpu,
                generation_config="vllm",
                logprobs_mode="processed_logprobs",
                seed=self.options.seed,
            )
        if self.enable_sleep_mode:
            self.llm.sleep(level=2)
        self._llm_weights_sleeping = self.enable_sleep_mode
        self.accelerator.wait_for_everyone()

    def send_weights(self) -> None:
        """TRL's way on an accelerator. On a CPU vLLM's own reload: weights packed for it cannot be loaded over."""
        if self.accelerator.device.type != "cpu":
            self.sync_weights()
            return
        runner = self.llm.llm_engine.model_executor.driver_worker.model_runner
        runner.reload_weights(weights_iterator=_with_head(self._iter_named_params(), self.student.inner))
        self.llm.reset_prefix_cache()

    def write(self, prompts: Sequence[Tokens], parameters: Sequence[dict[str, Any]]) -> list[Written]:
        if self.enable_sleep_mode:
            self.llm.wake_up(tags=["kv_cache"])
        sampling = [SamplingParams(**values, detokenize=False) for values in parameters]
        given = [{"prompt_token_ids": list(map(int, prompt))} for prompt in prompts]
        outputs = self.llm.generate(given, sampling, use_tqdm=False)
        if self.enable_sleep_mode:
            self.llm.sleep(level=2)
            self._llm_weights_sleeping = True
        written: list[Written] = []
        for output in outputs:
            first = output.outputs[0]
            told = zip(first.token_ids, first.logprobs, strict=True)
            written.append((list(first.token_ids), [float(of[token].logprob) for token, of in told]))
        return written


class Served(VLLMGeneration):
    """vLLM as a server (`vllm serve`): every rank asks it for its own rollouts, rank 0 sends the weights."""

    forgets = False

    def __init__(self, student: Student, options: VllmOptions) -> None:
        self.student, self.options = student, options
        device = student.accelerator.device.type
        if options.weight_sync == "nccl" and device != "cuda":
            raise ConfigError(f"vllm_weight_sync: nccl needs CUDA, and this run is on {device}; use disk")
        self.by_disk = options.weight_sync == "disk" or device != "cuda"
        super().__init__(
            student.model,
            student.accelerator,
            student.tokenizer,
            mode="server",
            server_base_url=options.server_base_url,
            server_timeout=options.server_timeout,
            group_port=options.group_port,
        )

    def _init_vllm(self) -> None:
        with _answered(self.server_base_url):
            self.vllm_client = VLLMClient(
                self.server_base_url, group_port=self.group_port, connection_timeout=self.server_timeout
            )
            settings = self.vllm_client.get_server_info()["model_config"]
            if self.accelerator.is_main_process and not self.by_disk:
                self.vllm_client.init_communicator(device=self.accelerator.device)
        self.longest = int(settings["max_model_len"])
        self.processed = str(settings["logprobs_mode"]).endswith("processed_logprobs")
        self.accelerator.wait_for_everyone()

    def send_weights(self) -> None:
        """Over NCCL, or through a file; no rank asks for a rollout before they are there."""
        with _answered(self.server_base_url):
            if self.by_disk:
                self._send_by_disk()
            else:
                self.sync_weights()
        self.accelerator.wait_for_everyone()

    def _send_by_disk(self) -> None:
        """Save the weights beside the run, and let the server read them with vLLM's own reload."""
        walked = _with_head(self._iter_named_params(), self.student.inner)
        if not self.accelerator.is_main_process:
            for _ in walked:  # take part in the gathering
                pass
            return
        folder = Path(self.options.folder).resolve() / "stages" / "vllm"
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in walked}
        save_file(weights, folder / "model.safetensors")
        call = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
        self.vllm_client._post(f"{self.server_base_url}/collective_rpc", json=call)
        self.vllm_client.reset_prefix_cache()
        shutil.rmtree(folder)

    def write(self, prompts: Sequence[Tokens], parameters: Sequence[dict[str, Any]]) -> list[Written]:
        with _answered(self.server_base_url), ThreadPoolExecutor(AT_ONCE) as threads:
            return list(threads.map(self._ask, prompts, parameters))

    def _ask(self, prompt: Tokens, parameters: dict[str, Any]) -> Written:
        """One request of its own: a server takes one seed for all prompts of a request."""
        ids = list(map(int, prompt))  # JSON cannot hold numpy's
        answer = self.vllm_client.generate([ids], generation_kwargs=parameters)
        return answer["completion_ids"][0], [values[0] for values in answer["logprobs"][0]]


def _with_head(weights: Iterator[tuple[str, Tensor]], model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """The weights, and a tied head under its own name too, for a vLLM that holds it apart."""
    tied = tied_head(model)
    for name, value in weights:
        yield name, value
        if tied is not None and name == tied[0]:
            yield tied[1], value


@contextlib.contextmanager
def _launched(accelerator: Accelerator) -> Iterator[None]:
    """What vLLM reads of a launcher, while it starts; a later trainer of this process must not see it."""
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    before = {name: os.environ.get(name) for name in names}
    ranks = (accelerator.process_index, accelerator.local_process_index, accelerator.num_processes)
    os.environ |= dict(zip(names, map(str, ranks), strict=False))
    ensure_master_addr_port()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _answered(url: str) -> Iterator[None]:
    """Say what is wrong with a server that does not answer, or refuses, in one line."""
    try:
        yield
    except (requests.RequestException, ConnectionError) as error:
        raise EnvironmentFault(
            f"vllm_server: {url} does not answer ({type(error).__name__}); is `vllm serve` up?"
        ) from error
    except Exception as error:
        # TRL raises these two: a server without development endpoints or weight transfer, and a refused request.
        if type(error) not in (RuntimeError, Exception):
            raise
        raise EnvironmentFault(f"vllm_server: {' '.join(str(error).split())}") from error
