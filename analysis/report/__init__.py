"""The report: one HTML file about an experiment that needs no network."""

from analysis.report.page import write_report

__all__ = ["write_report"]
