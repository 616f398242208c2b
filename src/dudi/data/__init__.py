"""Rows in, tokenised examples out."""
