"""How good a model is: questions, answers, scores, and the records of all three."""
