"""The languages: names, wording, detection of what a text is written in."""
