"""What was done and what it cost: on the console, as JSON, as one HTML file."""

from onnxpress.report.document import document
from onnxpress.report.html import require_html, write_difference, write_html

__all__ = ["document", "require_html", "write_difference", "write_html"]
