"""Rollout engines: who writes the student's (and, for SeqKD, the teacher's) answers."""

from dudi.rollouts.engine import Engine, Request, Rollout
from dudi.rollouts.noise import GumbelNoise, NoiseKey
from dudi.rollouts.transformers_engine import TransformersEngine
from dudi.rollouts.vllm import VLLMEngine

__all__ = ["Engine", "GumbelNoise", "NoiseKey", "Request", "Rollout", "TransformersEngine", "VLLMEngine"]
