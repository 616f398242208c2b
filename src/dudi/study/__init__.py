"""Grids of runs: every table of the paper as one file, each run made once, and the page that shows them."""
