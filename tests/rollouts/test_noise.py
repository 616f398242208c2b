"""The sampling noise: its exact bits, its distribution, and what it does and does not depend on."""

import hashlib
import math

import pytest
import torch

from dudi.rollouts import GumbelNoise, NoiseKey

CPU = torch.device("cpu")
EULER = 0.5772156649015329
GOLDEN = [917355547, 1331603657, 1621232065, 334118545]
MASK = 0xFFFFFFFF


def key(row="row", seed=0, epoch=0, kind="plain"):
    return NoiseKey(seed, row, epoch, kind)


def noise(*keys, vocabulary=64):
    return GumbelNoise(keys, vocabulary, CPU)


# The same function on Python's whole numbers, which do not wrap.


def mix_by_hand(x):
    x ^= x >> 16
    x = (x * 0x7FEB352D) & MASK
    x ^= x >> 15
    x = (x * 0x846CA68B) & MASK
    return x ^ (x >> 16)


def bits_by_hand(noise_key, position, token):
    text = repr((noise_key.seed, noise_key.row_id, noise_key.epoch, noise_key.kind))
    digest = hashlib.sha256(text.encode("utf-8", "backslashreplace")).digest()
    first, second = int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")
    row = mix_by_hand(mix_by_hand((second + position) & MASK) ^ first)
    return mix_by_hand(mix_by_hand(token + 1) ^ row) & 0x7FFFFFFF


def gumbel_by_hand(bits):
    return -math.log(-math.log1p(-(bits + 0.5) / 2**31))


# Chi-square of counts, with the limit that chance passes once in a million (Wilson and Hilferty's approximation).


def chi_square(observed, expected):
    return ((observed - expected) ** 2 / expected).sum().item()


def chance_limit(degrees, sigmas=4.75):
    return degrees * (1 - 2 / (9 * degrees) + sigmas * math.sqrt(2 / (9 * degrees))) ** 3


LOGITS = torch.tensor([2.0, 1.5, 1.0, 1.0, 0.5, 0.0, 0.0, -0.5, -1.0, -1.5])
PROBABILITIES = LOGITS.double().softmax(-1)


def draws(keys, positions, sign=1.0, reuse_position=False):
    """(len(keys), len(positions)) tokens drawn from `LOGITS`; the options are defects that the tests must see."""
    source = GumbelNoise(keys, len(LOGITS), CPU)
    return torch.stack([(LOGITS + sign * source.at(0 if reuse_position else p)).argmax(-1) for p in positions], dim=1)


def single_statistic(tokens):
    counts = torch.bincount(tokens.flatten(), minlength=len(LOGITS)).double()
    return chi_square(counts, PROBABILITIES * tokens.numel())


def pair_statistic(left, right):
    """Whether two draws are independent: counts of pairs against the product of their probabilities."""
    pairs = torch.bincount((left * len(LOGITS) + right).flatten(), minlength=len(LOGITS) ** 2).double()
    return chi_square(pairs, torch.outer(PROBABILITIES, PROBABILITIES).flatten() * left.numel())


SINGLE_LIMIT = chance_limit(len(LOGITS) - 1)
PAIR_LIMIT = chance_limit(len(LOGITS) ** 2 - 1)


class TestBits:
    @pytest.mark.parametrize(
        "noise_key",
        [key(), key("vi-17", 42, 3, "verbalized"), key("แถว ၁", -5, 2**40, "teacher"), key("lone \ud800", 2**70)],
    )
    def test_equal_to_whole_number_arithmetic(self, noise_key):
        source = noise(key("another"), noise_key, vocabulary=151)
        for position in (0, 1, 255, 65535, 2**31 - 1):
            expected = [bits_by_hand(noise_key, position, token) for token in range(151)]
            assert source.bits(position)[1].tolist() == expected

    def test_written_down_once(self):
        """A change of these numbers changes every run that was ever sampled."""
        assert bits_by_hand(key(), 0, 0) == noise(key()).bits(0)[0, 0].item()
        assert noise(key()).bits(0)[0, :4].tolist() == GOLDEN

    def test_inside_31_bits(self):
        bits = torch.cat([noise(key(), vocabulary=20_000).bits(p) for p in range(20)])
        assert bits.min() >= 0
        assert bits.max() <= 2**31 - 1
        assert bits.max() > 2**31 - 2**16  # the top bit of the mask is used
        for bit in range(31):
            share = ((bits >> bit) & 1).double().mean().item()
            assert abs(share - 0.5) < 5 * 0.5 / math.sqrt(bits.numel())

    def test_gumbel_of_the_bits(self):
        source = noise(key(), vocabulary=5000)
        bits, values = source.bits(7)[0].tolist(), source.at(7)[0].double()
        expected = torch.tensor([gumbel_by_hand(b) for b in bits], dtype=torch.float64)
        # Where u is within a few fp32 steps of 1 the noise is below -2: coarser there, and it never wins.
        torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-2)
        top = expected > -2
        torch.testing.assert_close(values[top], expected[top], rtol=1e-5, atol=1e-5)
        assert source.at(7).dtype == torch.float32

    @pytest.mark.parametrize("bits", [0, 1, 2, 2**31 - 1])
    def test_the_ends_are_finite_and_exact(self, bits, monkeypatch):
        source = noise(key())
        monkeypatch.setattr(source, "bits", lambda position: torch.full((1, 1), bits, dtype=torch.int32))
        value = source.at(0).item()
        assert math.isfinite(value)
        # The top end is held at u = 1 - 2**-24, where the noise is smallest and never wins.
        expected = gumbel_by_hand(bits) if bits < 2**30 else -math.log(24 * math.log(2))
        assert value == pytest.approx(expected, rel=1e-6)


class TestDependence:
    def test_same_key_same_bits(self):
        for position in (0, 3):
            assert torch.equal(noise(key()).at(position), noise(key()).at(position))

    def test_reading_one_position_does_not_move_another(self):
        source = noise(key())
        before = source.at(5)
        source.at(0), source.at(5), source.at(9)
        assert torch.equal(source.at(5), before)

    def test_independent_of_batch_and_order(self):
        keys = [key(f"row-{i}") for i in range(6)]
        together = noise(*keys)
        backwards = noise(*reversed(keys))
        for position in (0, 11):
            rows = together.at(position)
            assert torch.equal(rows, backwards.at(position).flip(0))
            for index, one in enumerate(keys):
                assert torch.equal(rows[index], noise(one).at(position)[0])

    def test_a_larger_vocabulary_leaves_the_shared_ids_as_they_are(self):
        assert torch.equal(noise(key(), vocabulary=900).at(2)[:, :100], noise(key(), vocabulary=100).at(2))

    @pytest.mark.parametrize(
        "other", [key("row "), key(seed=1), key(epoch=1), key(kind="verbalized"), key(seed=1, epoch=-1)]
    )
    def test_each_part_of_the_key_counts(self, other):
        ours, theirs = noise(key(), vocabulary=20_000).at(0)[0], noise(other, vocabulary=20_000).at(0)[0]
        assert (ours == theirs).sum() < 5
        assert abs(torch.corrcoef(torch.stack([ours, theirs]))[0, 1].item()) < 5 / math.sqrt(20_000)

    def test_keys_that_print_alike_are_told_apart(self):
        assert key("1, 0").words() != NoiseKey(0, "1", 0, "plain").words()
        assert NoiseKey(1, "1", 11, "p").words() != NoiseKey(11, "1", 1, "p").words()
        assert NoiseKey(0, "a', 0, 'b", 0, "c").words() != NoiseKey(0, "a", 0, "b', 0, 'c").words()

    def test_no_generator_is_touched(self):
        before = torch.get_rng_state()
        noise(key(), key("other")).at(3)
        assert torch.equal(before, torch.get_rng_state())


class TestDistribution:
    def test_moments(self):
        source = noise(*(key(f"row-{i}") for i in range(20)), vocabulary=5000)
        values = torch.stack([source.at(position) for position in range(10)]).double().flatten()
        count = values.numel()  # a million
        spread = math.pi / math.sqrt(6)
        assert values.mean().item() == pytest.approx(EULER, abs=5 * spread / math.sqrt(count))
        assert values.std().item() == pytest.approx(spread, abs=0.01)
        skewness = ((values - values.mean()) / values.std()).pow(3).mean().item()
        assert skewness == pytest.approx(1.1395, abs=0.03)
        for quantile in (0.001, 0.1, 0.5, 0.9, 0.999, 0.9999):
            share = (values <= -math.log(-math.log(quantile))).double().mean().item()
            assert abs(share - quantile) < 5 * math.sqrt(quantile * (1 - quantile) / count)

    @pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
    def test_tokens_are_drawn_from_the_softmax(self, seed):
        across_rows = draws([key(f"row-{i}", seed) for i in range(8000)], [seed])
        along_a_rollout = draws([key("row", seed)], range(8000))
        assert single_statistic(across_rows) < SINGLE_LIMIT
        assert single_statistic(along_a_rollout) < SINGLE_LIMIT

    @pytest.mark.parametrize("seed", range(3))
    def test_positions_are_independent(self, seed):
        tokens = draws([key(f"row-{i}", seed) for i in range(400)], range(60))
        for lag in (1, 2, 7):
            assert pair_statistic(tokens[:, :-lag], tokens[:, lag:]) < PAIR_LIMIT

    @pytest.mark.parametrize("seed", range(3))
    def test_kinds_epochs_and_seeds_are_independent(self, seed):
        base = draws([key(f"row-{i}", seed) for i in range(4000)], range(5))
        others = (
            [key(f"row-{i}", seed, kind="verbalized") for i in range(4000)],
            [key(f"row-{i}", seed, epoch=1) for i in range(4000)],
            [key(f"row-{i}", seed + 1) for i in range(4000)],
        )
        for keys in others:
            assert pair_statistic(base, draws(keys, range(5))) < PAIR_LIMIT

    def test_these_tests_see_a_defect(self):
        keys = [key(f"row-{i}") for i in range(4000)]
        # One position's noise for every position: the tokens of a rollout repeat.
        stuck = draws(keys, range(4), reuse_position=True)
        assert single_statistic(draws([key()], range(8000), reuse_position=True)) > 10 * SINGLE_LIMIT
        assert pair_statistic(stuck[:, :-1], stuck[:, 1:]) > 10 * PAIR_LIMIT
        # The same rollout for both kinds.
        same = draws(keys, [0])
        assert pair_statistic(same, same) > 10 * PAIR_LIMIT
        # Noise of the wrong sign, no noise, and noise that is a tenth too strong.
        assert single_statistic(draws(keys, range(4), sign=-1.0)) > 10 * SINGLE_LIMIT
        assert single_statistic(draws(keys, range(4), sign=0.0)) > 10 * SINGLE_LIMIT
        assert single_statistic(draws(keys, range(4), sign=1.1)) > SINGLE_LIMIT
