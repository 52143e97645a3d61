"""What a search found: results, what mattered, the best trial, promotion. Needs no Ray.

from analysis import Results, confirm, promote
results = Results.open("latest")
results.trials.sort_values("val_loss")
promote(results, "everyday", confirmed=confirm(results, seeds=3))
"""

from analysis.comparison import compare
from analysis.promotion.confirmation import confirm
from analysis.promotion.registry import promote
from analysis.results import Results

__all__ = ["Results", "compare", "confirm", "promote"]
