"""Hostile and broken input by kind: a sentence and an exit status, in bounded time and memory.

- `files`: models that are no files, or whose weights lie where they should not;
- `graphs`: models that say impossible or enormous things;
- `beside`: samples, recipes and targets for a model that is all right.
"""
