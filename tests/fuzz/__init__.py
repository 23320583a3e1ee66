"""Fuzzing: mutated models, samples and recipes through the commands, a process each.

    PYTHONPATH=tests python -m fuzz --minutes 2 --seed 0

- `seeds`: the small valid files that are mutated;
- `mutation`: what is done to them;
- `trial`: a command in a process of its own, with bounds of time and memory;
- `__main__`: a campaign; what fails is kept and named;
- `corpus/`: files that once failed, each of a kind; `test_corpus.py` runs all of them.
"""
