"""Recipes of any kind: YAML, then `key=value`; where each value came from. No torch here."""
