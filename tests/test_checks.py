"""Public functions refuse what are no numbers with gamwarm's own errors, whichever gets it."""

import numpy as np
import pytest
from scipy import sparse

import gamwarm

pytestmark = pytest.mark.timeout(60)


class Tensor:
    """An array that NumPy cannot convert, such as one that records a gradient."""

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("call detach() first")


NOT_NUMBERS = {
    "None": None,
    "an integer beyond binary64": 10**400,
    "such integers": [10**400],
    "text": "abc",
    "text of a number": "1.5",
    "bytes": b"ab",
    "complex numbers": np.zeros(2, dtype=complex),
    "ragged lists": [[1.0], [1.0, 2.0]],
    "a dict": {},
    "a set, which has no order": {1.0, 2.0},
    "an object": object(),
    "a tensor": Tensor(),
    "dates": np.zeros(2, dtype="M8[D]"),
    "masked numbers": np.ma.array([1.0, 2.0], mask=[False, True]),
    "a sparse matrix": sparse.eye(2).tocsr(),
    "records": np.zeros(1, dtype=[("a", "f8")]),
    "a function": len,
}
IDENTITY = gamwarm.term_identity("mean", "a", [None], [0], 2)
CALLS = {
    "InnerMode": (
        gamwarm.InnerMode,
        {"log_likelihood": 1.0, "penalty_value": 1.0, "cycles": 3, "converged": True}
        | {"block_logdet_h": [1.0], "block_logdet_s": [1.0]},
    ),
    "Curvature": (
        gamwarm.Curvature,
        {"gradient": [0.0], "hessian": [[1.0]], "edf": [1.0], "plateau": [True], "settled": [True]},
    ),
    "TermArtifact": (
        gamwarm.TermArtifact,
        {"identity": IDENTITY, "role": "mean", "basis_meta": gamwarm.BasisMeta("bspline"), "raw_beta": [0.0, 1.0]}
        | {"rho_for_term": [0.0], "plateau": [True], "settled": [True]},
    ),
    "FitResult": (gamwarm.FitResult, {"rho": [0.0], "block_beta": [[0.0, 1.0]], "objective": 1.0, "converged": True}),
    "term_identity": (
        gamwarm.term_identity,
        {"role": "mean", "name": "a", "labels": [None], "nullspace_dims": [0], "width": 2},
    ),
    "plateau_flags": (
        gamwarm.plateau_flags,
        {"rho": [0.0], "gradient": [0.0], "edf": [1.0], "max_edf": [2.0], "tol": 1e-5, "rho_bound": 15.0},
    ),
    "settled_flags": (gamwarm.settled_flags, {"rho": [0.0], "gradient": [0.0], "tol": 1e-5, "rho_bound": 15.0}),
    "false_plateaus": (gamwarm.false_plateaus, {"rho": [0.0], "edf": [1.0], "gradient": [0.0]}),
    "predicted_step": (gamwarm.predicted_step, {"gradient": [0.0], "metric": [[1.0]]}),
    "beta_gate": (gamwarm.beta_gate, {"offered": 1.0, "null": 2.0}),
}
# None leaves these out, a name may be any text, and blocks differ in width.
TAKEN = {
    ("None", argument) for argument in ("gradient", "hessian", "edf", "plateau", "settled", "basis_meta", "objective")
}
TAKEN |= {("text", "name"), ("text of a number", "name"), ("ragged lists", "block_beta")}


@pytest.mark.parametrize(
    ("call", "argument", "what"),
    [
        (call, argument, what)
        for call, (_, arguments) in CALLS.items()
        for argument in arguments
        for what in NOT_NUMBERS
        if (what, argument) not in TAKEN
    ],
)
def test_what_are_no_numbers_is_refused_by_name(call, argument, what):
    function, arguments = CALLS[call]
    with pytest.raises(gamwarm.GamwarmError):
        function(**{**arguments, argument: NOT_NUMBERS[what]})
