"""Models and tokenizers: loaded, screened, adapted, sharded, frozen, held against each other."""
