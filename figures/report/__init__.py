"""The report: a page that tells the story with its figures, and pages of statements, comparisons and sources.

`write_report` writes `report/index.html`, which needs no other file to be read. The other pages and the figures as
PNG, SVG and PDF lie beside it.
"""

from __future__ import annotations

from figures.report.write import write_report

__all__ = ["write_report"]
