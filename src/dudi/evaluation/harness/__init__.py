"""EleutherAI's lm-evaluation-harness as a library, over a loaded model; the extra `lm-eval`.

Its tasks, its requests and its metrics; likelihoods are `dudi.evaluation.likelihood`'s, and the results land in
`evaluation.json` with a line for each question.
"""

NAME = "lm-eval"
"""As a benchmark."""
