"""Options have the promised defaults and refuse what means nothing; a family is an object that
names itself.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gamwarm.errors import InvalidInput, InvalidType
from gamwarm.problem import BlockwiseFitOptions, CustomFamily, check_family, family_kind_of
from tests.support.problems import NamedFamily

DEFAULTS = {
    "inner_max_cycles": 1200,
    "inner_tol": 1e-6,
    "outer_max_iter": 60,
    "outer_tol": 1e-5,
    "outer_rel_cost_tol": None,
    "min_weight": 1e-12,
    "ridge_floor": 1e-12,
    "ridge_policy": "explicit-stabilization-pospart",
    "use_reml_objective": True,
    "use_outer_hessian": True,
    "compute_covariance": False,
    "early_exit_threshold": None,
    "outer_score_subsample": None,
    "auto_outer_subsample": True,
    "rho_bound": 15.0,
}


def test_the_defaults_are_the_promised_ones():
    assert dataclasses.asdict(BlockwiseFitOptions()) == DEFAULTS


def test_options_compare_by_content_and_cannot_be_changed():
    options = BlockwiseFitOptions(outer_score_subsample=[0, 2])

    assert options == BlockwiseFitOptions(outer_score_subsample=np.array([0.0, 2.0]))
    assert options != BlockwiseFitOptions()
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.outer_tol = 1.0


@pytest.mark.parametrize("bound", [2.1, 10, np.inf])
def test_rho_bound_is_above_two_or_infinite(bound):
    assert BlockwiseFitOptions(rho_bound=bound).rho_bound == bound


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"rho_bound": 2.0}, InvalidInput),
        ({"rho_bound": np.nan}, InvalidInput),
        ({"rho_bound": -np.inf}, InvalidInput),
        ({"rho_bound": "10"}, InvalidType),
        ({"inner_max_cycles": -1}, InvalidInput),
        ({"inner_max_cycles": 10.0}, InvalidType),
        ({"inner_max_cycles": True}, InvalidType),
        ({"outer_max_iter": -1}, InvalidInput),
        ({"inner_tol": -1e-6}, InvalidInput),
        ({"outer_tol": np.nan}, InvalidInput),
        ({"outer_tol": None}, InvalidType),
        ({"outer_rel_cost_tol": np.inf}, InvalidInput),
        ({"min_weight": -1.0}, InvalidInput),
        ({"ridge_floor": 1j}, InvalidType),
        ({"ridge_policy": ""}, InvalidInput),
        ({"ridge_policy": None}, InvalidType),
        ({"use_reml_objective": 1}, InvalidType),
        ({"use_outer_hessian": "yes"}, InvalidType),
        ({"early_exit_threshold": np.nan}, InvalidInput),
        ({"outer_score_subsample": [[0.0]]}, InvalidInput),
        ({"outer_score_subsample": [np.nan]}, InvalidInput),
        ({"auto_outer_subsample": None}, InvalidType),
    ],
)
def test_an_option_that_means_nothing_is_refused_by_name(changes, error):
    (name,) = changes

    with pytest.raises(error, match=f"option {name}"):
        BlockwiseFitOptions(**changes)


def test_a_family_is_an_object_with_a_fingerprint():
    family = NamedFamily()

    assert isinstance(family, CustomFamily)
    assert check_family(family) is family
    for other in (NamedFamily, object(), None):
        with pytest.raises(InvalidType, match="persistent_warm_start_fingerprint"):
            check_family(other)


class Nameless:
    def persistent_warm_start_fingerprint(self, specs, options):
        return ""


def test_a_family_kind_is_its_own_or_its_module_and_class():
    assert family_kind_of(NamedFamily("lab.gamma")) == "lab.gamma"
    assert family_kind_of(Nameless()) == f"{Nameless.__module__}.Nameless"
