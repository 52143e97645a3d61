"""What mattered, by three methods, and what choosing by training loss would have cost."""

from analysis.importance.estimates import Importance, importances
from analysis.importance.study import to_study

__all__ = ["Importance", "importances", "to_study"]
