"""MT-LLM in miniature: small models, made here, on which every claim about the method can be measured on a laptop."""
