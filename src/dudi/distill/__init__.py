"""DuDi: seven methods over three signals, from a recipe to a run directory."""
