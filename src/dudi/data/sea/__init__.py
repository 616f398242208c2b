"""SEA-Instruct: read, filtered, and sampled with its mix of domains kept."""
