"""Several models as one pipeline: read, run as it is used, optimized within one budget."""

from onnxpress.pipelines.description import Part, Pipeline, read_pipeline
from onnxpress.pipelines.fitting import Wiring, wired
from onnxpress.pipelines.layouts import read_folder
from onnxpress.pipelines.loop import Loop
from onnxpress.pipelines.optimizing import optimize_pipeline
from onnxpress.pipelines.recipe import PipelineRecipe
from onnxpress.pipelines.result import PartResult, PipelineResult
from onnxpress.pipelines.running import Running
from onnxpress.pipelines.stream import Piece, Stream

__all__ = [
    "Loop",
    "Part",
    "PartResult",
    "Piece",
    "Pipeline",
    "PipelineRecipe",
    "PipelineResult",
    "Running",
    "Stream",
    "Wiring",
    "optimize_pipeline",
    "read_folder",
    "read_pipeline",
    "wired",
]
