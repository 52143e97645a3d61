"""What a search found: results, the best trial, promotion. Opens an experiment without Ray.

from analysis import Results, promote
results = Results.open("latest")
results.trials.sort_values("val_loss")
promote(results, "everyday")
"""

from analysis.registry import promote
from analysis.results import Results

__all__ = ["Results", "promote"]
