"""Sample models, and checks that every pass must satisfy: ours, and any third party's.

from onnxpress.testing import parametrize_with_checks

@parametrize_with_checks([MyPass()])
def test_contract(check):
check()
"""

from onnxpress.testing.cell import Cell
from onnxpress.testing.checks import CHECKS
from onnxpress.testing.models import SAMPLE_MODELS
from onnxpress.testing.parametrize import Check, checks_of, parametrize_with_checks

__all__ = [
    "CHECKS",
    "SAMPLE_MODELS",
    "Cell",
    "Check",
    "checks_of",
    "parametrize_with_checks",
]
