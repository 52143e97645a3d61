"""Distributions: which values a hyper-parameter may take, and how likely each one is.

They carry the names and keys of the Weights & Biases sweep format, and its definitions
(https://docs.wandb.ai/models/sweeps/sweep-config-keys). Each is defined by its inverse cumulative
distribution function, ``quantile``, from which sampling follows (inverse transform sampling), so
that any source of uniform numbers, random or quasi-random, can drive it; ``cdf`` leads back. A new
distribution is a subclass of `Distribution` listed in `DISTRIBUTIONS`.
"""

from tuning.distributions.base import Continuous, Distribution, Fault, Scalar, same
from tuning.distributions.discrete import Categorical, Constant, Ordinal, WeightedCategorical
from tuning.distributions.parsing import DISTRIBUTIONS, parse_distribution
from tuning.distributions.quantised import (
    QBeta,
    QLogNormal,
    QLogUniform,
    QLogUniformExponent,
    QNormal,
    Quantised,
    QUniform,
)
from tuning.distributions.ranges import (
    IntUniform,
    InvLogUniform,
    InvLogUniformExponent,
    LogUniform,
    LogUniformExponent,
    Uniform,
)
from tuning.distributions.shapes import Beta, LogNormal, Normal, Shape

__all__ = [
    "DISTRIBUTIONS",
    "Beta",
    "Categorical",
    "Constant",
    "Continuous",
    "Distribution",
    "Fault",
    "IntUniform",
    "InvLogUniform",
    "InvLogUniformExponent",
    "LogNormal",
    "LogUniform",
    "LogUniformExponent",
    "Normal",
    "Ordinal",
    "QBeta",
    "QLogNormal",
    "QLogUniform",
    "QLogUniformExponent",
    "QNormal",
    "QUniform",
    "Quantised",
    "Scalar",
    "Shape",
    "Uniform",
    "WeightedCategorical",
    "parse_distribution",
    "same",
]
