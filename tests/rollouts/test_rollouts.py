"""The transformers engine: rollouts are a function of the prompt, the key and the weights, and of nothing else."""

import contextlib
import random

import numpy as np
import pytest
import torch

from dudi.models.attention import attends_to_all
from dudi.rollouts import GumbelNoise, NoiseKey, Request, Rollout, TransformersEngine
from helpers import make_model

VOCABULARY = 60
STOPS = (2, 3)  # an end of turn and an EOS
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model():
    """64 ids, of which the last four are padding; random enough that all of them are drawn."""
    return make_model("llama", seed=5, vocab_size=64).eval()


def make_engine(model, **options):
    settings = {
        "stop_ids": STOPS,
        "pad_id": 2,
        "max_new_tokens": 14,
        "temperature": 0.9,
        "vocabulary": VOCABULARY,
        "batch_size": 64,
        **options,
    }
    return TransformersEngine(lambda: contextlib.nullcontext(model), **settings)


def generating(model, **options):
    """An engine that decodes with `generate`, as it does for models of other kinds."""
    engine = make_engine(model, **options)
    engine._decode_plainly = engine._decode_with_generate
    return engine


def make_requests(count=20, seed=0):
    """Prompts of 1 to 24 ids; the stop ids stand in them too, as the turns of a conversation end with them."""
    draw = random.Random(seed)
    return [
        Request([draw.randrange(VOCABULARY) for _ in range(draw.randint(1, 24))], NoiseKey(7, f"row-{i}", 0, "plain"))
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def rollouts(model):
    return make_engine(model).generate(make_requests())


@torch.no_grad()
def by_hand(model, request, temperature=0.9, limit=14, vocabulary=VOCABULARY):
    """One rollout without a cache, a batch or padding: a whole forward for each token."""
    ids = list(request.prompt)
    noise = GumbelNoise([request.key], vocabulary, CPU)
    for position in range(limit):
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1, :vocabulary].float()
        ids.append((logits / temperature + noise.at(position)[0]).argmax().item())
        if ids[-1] in STOPS:
            break
    return ids[len(request.prompt) :]


class TestWhatIsDrawn:
    def test_the_same_as_recomputing_from_scratch(self, model, rollouts):
        for request, rollout in zip(make_requests(), rollouts, strict=True):
            assert rollout.ids == by_hand(model, request)

    def test_teacher_forced_every_token_is_the_noisy_argmax(self, model, rollouts):
        for request, rollout in zip(make_requests(), rollouts, strict=True):
            whole = torch.tensor([[*request.prompt, *rollout.ids]])
            with torch.no_grad():
                logits = model(input_ids=whole).logits[0, len(request.prompt) - 1 : -1, :VOCABULARY]
            noise = GumbelNoise([request.key], VOCABULARY, CPU)
            gumbel = torch.cat([noise.at(position) for position in range(len(rollout.ids))])
            assert (logits / 0.9 + gumbel).argmax(-1).tolist() == rollout.ids

    def test_the_rollouts_differ_from_each_other_and_from_greedy(self, model, rollouts):
        assert len({tuple(r.ids) for r in rollouts}) == len(rollouts)
        greedy = [by_hand(model, request, temperature=1e-6) for request in make_requests()]
        assert sum(g == r.ids for g, r in zip(greedy, rollouts, strict=True)) < len(rollouts) / 2

    def test_near_zero_temperature_is_greedy(self, model):
        for request, rollout in zip(
            make_requests(6), make_engine(model, temperature=1e-6).generate(make_requests(6)), strict=True
        ):
            ids = list(request.prompt)
            for token in rollout.ids:
                with torch.no_grad():
                    assert model(input_ids=torch.tensor([ids])).logits[0, -1, :VOCABULARY].argmax() == token
                ids.append(token)

    def test_tokens_follow_the_softmax_at_the_temperature(self, model):
        prompt = [5, 9, 30]
        requests = [Request(prompt, NoiseKey(0, f"row-{i}", 0, "plain")) for i in range(3000)]
        tokens = torch.tensor(
            [r.ids[0] for r in make_engine(model, max_new_tokens=1, batch_size=1000).generate(requests)]
        )
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt])).logits[0, -1, :VOCABULARY].double()
        counts = torch.bincount(tokens, minlength=VOCABULARY).double()

        def statistic(temperature):
            expected = (logits / temperature).softmax(-1) * len(requests)
            often = expected >= 10
            observed = torch.cat([counts[often], counts[~often].sum()[None]])
            expected = torch.cat([expected[often], expected[~often].sum()[None]])
            degrees = len(observed) - 1
            return (((observed - expected) ** 2 / expected).sum().item() - degrees) / (2 * degrees) ** 0.5

        assert statistic(0.9) < 6
        assert statistic(1.2) > 20 < statistic(0.7)  # the temperature that was not asked for is seen


class TestWhatIsCutOff:
    """Top-k and top-p: as transformers' own `generate` cuts, after the temperature."""

    @pytest.mark.parametrize(("top_k", "top_p"), [(5, None), (None, 0.6), (9, 0.7)])
    def test_every_token_is_the_noisy_argmax_of_those_that_are_left(self, model, top_k, top_p):
        requests = make_requests(8)
        for request, rollout in zip(
            requests, make_engine(model, top_k=top_k, top_p=top_p).generate(requests), strict=True
        ):
            ids = list(request.prompt)
            noise = GumbelNoise([request.key], VOCABULARY, CPU)
            for position, token in enumerate(rollout.ids):
                with torch.no_grad():
                    logits = model(input_ids=torch.tensor([ids])).logits[0, -1, :VOCABULARY] / 0.9
                assert (logits + noise.at(position)[0] + left(logits, top_k, top_p)).argmax() == token
                ids.append(token)

    def test_something_is_cut(self, model, rollouts):
        assert make_engine(model, top_k=2).generate(make_requests()) != rollouts
        assert make_engine(model, top_p=0.3).generate(make_requests()) != rollouts
        assert make_engine(model, top_k=VOCABULARY, top_p=1.0).generate(make_requests()) == rollouts

    def test_the_padding_of_the_vocabulary_does_not_count(self):
        model = make_model(seed=5, vocab_size=64).eval()
        with torch.no_grad():
            model.lm_head.weight[VOCABULARY:] *= 100
        cut = make_engine(model, top_k=1).generate(make_requests())
        assert cut == make_engine(model, temperature=0.0).generate(make_requests())

    def test_greedy_cuts_nothing(self, model):
        greedy = make_engine(model, temperature=0.0).generate(make_requests())
        assert make_engine(model, temperature=0.0, top_p=0.1, top_k=3).generate(make_requests()) == greedy


def left(logits, top_k, top_p):
    """0 for the tokens that stay, -inf for the others, by sorting."""
    order = logits.argsort(descending=True)[:top_k]
    if top_p is not None:
        shares = logits[order].softmax(-1)
        order = order[: int((shares.cumsum(-1) - shares < top_p).sum())]  # the one that reaches top_p stays
    mask = torch.full_like(logits, float("-inf"))
    mask[order] = 0
    return mask


class TestIndependence:
    @pytest.mark.parametrize("batch_size", [1, 3, 64])
    def test_of_the_batch(self, model, rollouts, batch_size):
        assert make_engine(model, batch_size=batch_size).generate(make_requests()) == rollouts

    @pytest.mark.parametrize("batch_size", [3, 64])
    def test_of_the_order(self, model, rollouts, batch_size):
        order = list(range(len(rollouts)))
        random.Random(1).shuffle(order)
        requests = make_requests()
        shuffled = make_engine(model, batch_size=batch_size).generate([requests[i] for i in order])
        assert shuffled == [rollouts[i] for i in order]

    def test_of_who_else_is_asked(self, model, rollouts):
        requests = make_requests()
        assert make_engine(model).generate(requests[4:7]) == rollouts[4:7]

    def test_of_the_id_that_pads(self, model, rollouts):
        assert make_engine(model, pad_id=50).generate(make_requests()) == rollouts

    def test_another_key_gives_another_rollout(self, model, rollouts):
        for change in ({"seed": 8}, {"epoch": 1}, {"kind": "verbalized"}):
            requests = [
                Request(
                    r.prompt, NoiseKey(**{"seed": 7, "row_id": r.key.row_id, "epoch": 0, "kind": "plain", **change})
                )
                for r in make_requests()
            ]
            other = make_engine(model).generate(requests)
            assert sum(a.ids == b.ids for a, b in zip(other, rollouts, strict=True)) <= 2

    @pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
    def test_other_architectures(self, kind):
        model, requests = make_model(kind, seed=6, vocab_size=64).eval(), make_requests(6)
        one_by_one = make_engine(model, batch_size=1).generate(requests)
        assert make_engine(model).generate(requests) == one_by_one
        assert [r.ids for r in one_by_one] == [by_hand(model, request) for request in requests]

    def test_no_requests(self, model):
        assert make_engine(model).generate([]) == []


class TestWhereItStops:
    def test_at_either_stop_or_at_the_limit(self, model):
        rollouts = make_engine(model).generate(make_requests(60))
        for rollout in rollouts:
            assert not set(rollout.ids[:-1]) & set(STOPS)
            assert rollout.ended == (rollout.ids[-1] in STOPS)
            assert rollout.ended or len(rollout.ids) == 14
        assert {r.ids[-1] for r in rollouts if r.ended} == set(STOPS)  # both were met
        assert 0 < sum(r.ended for r in rollouts) < len(rollouts)

    def test_one_stop_alone(self, model):
        rollouts = make_engine(model, stop_ids=[2]).generate(make_requests(60))
        assert all(2 not in r.ids[:-1] for r in rollouts)
        assert any(3 in r.ids[:-1] for r in rollouts)

    def test_a_token_limit_of_one(self, model):
        rollouts = make_engine(model, max_new_tokens=1).generate(make_requests())
        assert all(len(r.ids) == 1 for r in rollouts)

    def test_a_shorter_limit_cuts_the_same_rollout(self, model, rollouts):
        short = make_engine(model, max_new_tokens=4).generate(make_requests())
        assert [r.ids for r in short] == [r.ids[:4] for r in rollouts]

    def test_cut_at_the_stop(self, model):
        assert make_engine(model)._cut([5, 3, 2, 2]) == Rollout([5, 3], ended=True)
        assert make_engine(model)._cut([5, 6]) == Rollout([5, 6], ended=False)


class TestPaddedVocabulary:
    def test_ids_of_the_padding_are_never_drawn(self):
        model = make_model(seed=5, vocab_size=64).eval()
        with torch.no_grad():
            model.lm_head.weight[VOCABULARY:] *= 100  # at about half of the positions they would win
        requests = make_requests(30)
        assert any(max(r.ids) >= VOCABULARY for r in make_engine(model, vocabulary=64).generate(requests))
        rollouts = make_engine(model).generate(requests)
        assert max(max(r.ids) for r in rollouts) < VOCABULARY
        assert [r.ids for r in rollouts] == [by_hand(model, request) for request in requests]


class TestWhatIsLeftAlone:
    def test_the_models_own_generation_config_has_no_say(self, rollouts):
        model = make_model("llama", seed=5, vocab_size=64).eval()
        own = model.generation_config
        own.do_sample, own.top_k, own.top_p, own.temperature = True, 1, 0.1, 3.0
        own.repetition_penalty, own.no_repeat_ngram_size, own.min_new_tokens = 5.0, 1, 9
        own.suppress_tokens, own.eos_token_id, own.max_new_tokens = [7, 8, 9], 11, 3
        model.config.use_cache = False
        before = own.to_dict()
        assert make_engine(model).generate(make_requests()) == rollouts
        assert model.generation_config is own
        assert own.to_dict() == before
        assert model.config.use_cache is False

    def test_it_is_put_back_after_an_error(self, monkeypatch):
        model = make_model("llama", seed=5, vocab_size=64).eval()
        own, model.config.use_cache = model.generation_config, False
        monkeypatch.setattr(model, "generate", lambda **kwargs: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            generating(model).generate(make_requests(2))
        assert model.generation_config is own
        assert model.config.use_cache is False

    def test_global_generators(self, model):
        random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
        before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
        make_engine(model, batch_size=4).generate(make_requests(8))
        assert random.getstate() == before[0]
        assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), before[1], strict=True))  # noqa: NPY002
        assert torch.equal(torch.get_rng_state(), before[2])

    def test_global_generators_have_no_say(self, model, rollouts):
        for seed in (1, 2):
            torch.manual_seed(seed)
            assert make_engine(model).generate(make_requests()) == rollouts

    def test_no_graph_is_kept(self, monkeypatch):
        model = make_model("llama", seed=5, vocab_size=64).train()
        seen = []
        own = model.model.forward
        monkeypatch.setattr(model.model, "forward", lambda **k: seen.append(torch.is_grad_enabled()) or own(**k))
        for engine in (make_engine(model), generating(model)):
            engine.generate(make_requests(2))
        assert set(seen) == {False}
        assert torch.is_grad_enabled()


class TestTheTwoLoops:
    """Our loop draws what `generate` draws, and it is the one that runs."""

    @pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "gemma3"])
    @pytest.mark.parametrize("options", [{}, {"top_k": 5}, {"temperature": 0.0}, {"batch_size": 7}])
    def test_both_draw_the_same(self, kind, options):
        model = make_model(kind, seed=6, vocab_size=64).eval()
        requests = make_requests(20)
        ours, theirs = make_engine(model, **options), generating(model, **options)
        assert ours.generate(requests) == theirs.generate(requests)

    @pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "gemma3"])
    @pytest.mark.parametrize("options", [{}, {"top_k": 5}, {"batch_size": 7}])
    def test_so_does_a_step_whose_shapes_stay(self, kind, options, monkeypatch):
        model = make_model(kind, seed=6, vocab_size=64).eval()
        drawn = make_engine(model, **options).generate(make_requests(20))
        widths = []
        own = model.model.forward
        monkeypatch.setattr(model.model, "forward", lambda **k: widths.append(k["attention_mask"]) or own(**k))
        still = make_engine(model, **options)
        still.still = True
        assert still.generate(make_requests(20)) == drawn
        ready = [mask.shape for mask in widths if mask is not None and mask.dim() == 4]
        assert len(ready) > 10 and len(set(ready)) <= 3  # one shape a batch, from its first token to its last

    def test_without_a_pad(self, model):
        requests = [Request([5, 6, 7], NoiseKey(0, str(i), 0, "plain")) for i in range(9)]
        assert make_engine(model).generate(requests) == generating(model).generate(requests)

    def test_which_one_runs(self, model, monkeypatch):
        monkeypatch.setattr(model, "generate", lambda **kwargs: pytest.fail("generate was called"))
        assert len(make_engine(model).generate(make_requests(3))) == 3
        windowed = make_model("qwen2", vocab_size=64, use_sliding_window=True, sliding_window=8, max_window_layers=0)
        assert attends_to_all(model.config, 10**6)
        assert attends_to_all(windowed.config, 8) and not attends_to_all(windowed.config, 9)

    def test_the_noise_that_is_added_is_the_noise(self):
        noise = GumbelNoise([NoiseKey(1, "a", 0, "plain"), NoiseKey(1, "b", 0, "plain")], 5000, CPU)
        for position in (0, 7):
            scores = torch.zeros(2, 5000)
            assert torch.equal(noise.add_to(scores, position), noise.at(position))
        noise.keep(torch.tensor([1]))
        assert torch.equal(noise.at(7), scores[1:])
