"""How the samples of each kind of data are drawn; `make_data.py` writes them.

A maker takes the cache and returns samples for calibration and for evaluation. A maker of fresh
samples returns more samples of the same kind that neither of the two holds.
"""

import numpy as np

Samples = dict[str, np.ndarray]
