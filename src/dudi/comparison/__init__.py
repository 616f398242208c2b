"""Evaluations of several models side by side: gathered, held against each other, tested, shown. No torch here."""
