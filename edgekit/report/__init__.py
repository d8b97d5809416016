"""The report: its schema, and its renderings as one HTML page and as Markdown (pure functions)."""

from __future__ import annotations

from edgekit.report.html import render_html
from edgekit.report.markdown import render_markdown

__all__ = ["render_html", "render_markdown"]
