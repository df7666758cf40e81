"""Every method, option and argument of SciPy: used as SciPy uses it, or refused by name; never
outside the bounds.
"""

from __future__ import annotations

import copy
import itertools
import logging
import warnings
from dataclasses import replace

import numpy as np
import pytest
import scipy.optimize
from scipy.optimize import Bounds, LinearConstraint

import gamwarm
from gamwarm import GamwarmError, InvalidInput, InvalidType
from gamwarm.adapters import minimize, minimize_problem
from gamwarm.adapters.methods import DIFFERENCES, METHODS
from gamwarm.testing.store_proxy import InterceptingStore

LOW, HIGH = np.array([-1.0, -1.0, -1.0]), np.array([0.5, 2.0, 0.25])
X0 = [0.0, 0.2, 0.1]


class Dish:
    """A convex function of three entries around a centre; raises outside its bounds, if it has
    some.
    """

    def __init__(self, centre, bounded=False):
        self.centre, self.bounded, self.calls = np.asarray(centre, dtype=float), bounded, 0

    def __call__(self, x, *args):
        self.calls += 1
        if self.bounded and not (np.all(np.real(x) >= LOW) and np.all(np.real(x) <= HIGH)):
            raise ArithmeticError(f"called outside its bounds, at {x}")
        d = x - self.centre - sum(args)
        return (d**2).sum() + 0.1 * (d**4).sum() + 0.3 * d[0] * d[1]

    def gradient(self, x, *args):
        d = x - self.centre - sum(args)
        return 2.0 * d + 0.4 * d**3 + 0.3 * np.array([d[1], d[0], 0.0])

    def hessian(self, x, *args):
        d = x - self.centre - sum(args)
        matrix = np.diag(2.0 + 1.2 * d**2)
        matrix[0, 1] = matrix[1, 0] = 0.3
        return matrix


def needs(method, dish):
    """What a method cannot do without."""
    arguments = {"method": method.name}
    if method.jac == "needed":
        arguments["jac"] = dish.gradient
    if method.needs_hess or method.name == "Newton-CG":
        arguments["hess"] = dish.hessian
    return arguments


def run(method, store, centre=(1.0, 1.0, 0.3), bounded=False, **changes):
    dish = Dish(centre, bounded)
    arguments = {"name": "dish", "data": {"centre": dish.centre, "rows": np.zeros(5 + (centre[0] == 1.0))}}
    if bounded:
        arguments["bounds"] = Bounds(LOW, HIGH)
    return minimize(dish, X0, store=store, **arguments | needs(method, dish) | changes), dish


@pytest.fixture
def store(tmp_path):
    with gamwarm.open(tmp_path / "fits.h5") as opened:
        yield opened


OF_SCIPY = {name.lower() for name in scipy.optimize._minimize.MINIMIZE_METHODS}
ALL = [method for name, method in METHODS.items() if name in OF_SCIPY]
BOUNDED = [method for method in ALL if method.bounds]
DIFFERENTIATING = [method for method in ALL if method.jac == "differences"]


def ids(method):
    return method.name


def test_the_table_has_every_method_of_scipy():
    assert set(METHODS) - OF_SCIPY <= {"cobyqa"}, "of SciPy 1.14"
    assert set(METHODS) >= OF_SCIPY


@pytest.mark.parametrize("method", ALL, ids=ids)
def test_every_method_ends_where_scipy_does_starts_from_the_store_and_stays_at_its_answer(method, store):
    first, dish = run(method, store)
    options = {"ftol": 0.0} if method.name == "L-BFGS-B" else {}
    own = scipy.optimize.minimize(dish, X0, options=options, **needs(method, dish))
    assert np.array_equal(first.x, own.x), "the same calls in the same order"
    assert (first.success, first.kept.record.written) == (True, True)

    cold, _ = run(method, None, (0.9, 1.1, 0.2))
    near, _ = run(method, store, (0.9, 1.1, 0.2))
    assert (near.start.source, near.success) == ("transfer", True)
    assert near.x == pytest.approx(cold.x, abs=1e-3)

    again, _ = run(method, store)
    assert again.start.source == "exact"
    assert again.success
    better = first.fun - again.fun > 1e-6 * (1.0 + abs(again.fun))
    assert better or np.array_equal(again.x, first.x), "where SciPy finds nothing better the stored bits stay"
    assert better or again.kept.record.reason.startswith("unchanged")
    if method.name in ("BFGS", "CG", "L-BFGS-B"):
        assert (again.cost.evaluations, again.nit) == (1, 0)


@pytest.mark.parametrize("jac", [None, True, *DIFFERENCES])
@pytest.mark.parametrize("method", DIFFERENTIATING, ids=ids)
def test_differences_of_every_kind_are_scipys_own(method, jac):
    dish = Dish((1.0, 1.0, 0.3))
    fun = (lambda x: (dish(x), dish.gradient(x))) if jac is True else dish
    options = {"ftol": 0.0} if method.name == "L-BFGS-B" else {}
    own = scipy.optimize.minimize(fun, X0, jac=jac, method=method.name, options=options)

    found = minimize(fun, X0, store=None, name="dish", jac=jac, method=method.name)

    assert np.array_equal(found.x, own.x)


@pytest.mark.parametrize(
    ("method", "jac"),
    [
        pytest.param(method, jac, id=f"{method.name}-{jac}")
        for method in BOUNDED
        for jac in ((None, "3-point", "cs", "given") if method.jac else (None,))
    ],
)
def test_the_function_is_never_called_outside_its_bounds_wherever_the_start_is_from(method, jac, store):
    wide = {"bounds": [(-9.0, 9.0)] * 3, "bounded": False, "jac": None}

    def bounded(where, centre):
        slope = Dish(centre, bounded=True).gradient
        return run(method, where, centre, bounded=True, jac=slope if jac == "given" else jac)[0]

    run(method, store, (1.0, 3.0, 0.7), **wide)  # a parent whose answer lies outside the child's bounds
    cold = bounded(None, (0.9, 3.1, 0.6))
    near = bounded(store, (0.9, 3.1, 0.6))
    again = bounded(store, (0.9, 3.1, 0.6))

    assert (near.start.source, again.start.source) == ("transfer", "exact")
    for found in (cold, near, again):
        assert found.success
        assert np.all((found.x >= LOW) & (found.x <= HIGH))
        assert found.x == pytest.approx([0.5, 2.0, 0.25], abs=2e-2)


@pytest.mark.parametrize("method", BOUNDED, ids=ids)
def test_plateaus_of_bounded_smoothing_parameters_are_checked_inside_the_bounds(method, store):
    """Falling for good towards its upper bound, where nearer 0 is asked for."""
    high = 8.0

    def falling(x):
        assert 7.0 <= x[0] <= high, x
        return float(np.exp(-x[0]) + (x[1] - 1.0) ** 2)

    arguments = {"name": "falling", "rho": [0], "bounds": [(7.0, high), (None, None)], "method": method.name}
    for where in (None, store, store):
        found = minimize(falling, [7.5, 0.0], store=where, **arguments)
        assert found.x[1] == pytest.approx(1.0, abs=1e-2)


@pytest.mark.parametrize("method", [m for m in BOUNDED if m.jac], ids=ids)
def test_an_entry_that_its_bounds_fix_stays(method, store):
    bounds = [(0.25, 0.25), (-1, 2), (-1, 0.25)]
    for where in (None, store, store):
        found, _ = run(method, where, bounds=bounds, rho=[0, 1], jac=None)
        assert found.success
        assert found.x[0] == 0.25


FORMS = {
    "pairs": [(None, 0.5), (-1.0, None), (0, 1)],
    "an array": np.array([[-np.inf, 0.5], [-1.0, np.inf], [0, 1]]),
    "a tuple of lists": ([-np.inf, 0.5], [-1, np.inf], [0.0, 1.0]),
    "Bounds": Bounds([-np.inf, -1, 0], [0.5, np.inf, 1]),
    "Bounds that are kept": Bounds([-np.inf, -1, 0], [0.5, np.inf, 1], keep_feasible=True),
}


def key_of(**changes):
    arguments = {"name": "dish", "method": "L-BFGS-B", "data": {"y": np.arange(4.0)}} | changes
    return minimize_problem(Dish((1.0, 1.0, 0.3)), X0, arguments.pop("args", ()), **arguments).key


def test_equal_bounds_in_any_form_are_one_key_and_others_are_not():
    assert len({key_of(bounds=form) for form in FORMS.values()}) == 1
    assert len({key_of(bounds=b) for b in (None, Bounds(), [(None, None)] * 3, Bounds(-np.inf, np.inf))}) == 1
    assert key_of(bounds=Bounds(0, 1)) == key_of(bounds=[(0, 1)] * 3)
    assert len({key_of(bounds=b) for b in (None, [(0, 1)] * 3, [(0, 2)] * 3, FORMS["pairs"])}) == 4


def test_which_entry_belongs_to_which_block_is_part_of_the_key():
    splits = [
        {},
        {"rho": [0]},
        {"rho": [1]},
        {"blocks": {"a": [0, 1], "b": [2]}},
        {"blocks": {"a": [0, 2], "b": [1]}},
        {"blocks": {"a": [1, 0], "b": [2]}},
        {"blocks": {"b": [2], "a": [0, 1]}},
        {"blocks": {"a": [0, 1], "b": [2]}, "rho": [0]},
        {"blocks": {"a": [0, 1], "b": [2]}, "rho": [1]},
    ]
    assert len({key_of(**split) for split in splits}) == len(splits)
    assert key_of(rho=[0]) == key_of(rho=[True, False, False]) == key_of(rho=slice(0, 1)) == key_of(rho=[-3])


def test_masks_names_indexes_tolerances_and_constraints_are_part_of_the_key():
    pandas = pytest.importorskip("pandas")
    y = np.arange(4.0)
    frame = pandas.DataFrame({"y": y, "z": y})
    others = [
        {},
        {"data": {"z": y}},
        {"data": {"y": np.ma.array(y, mask=[0, 0, 0, 1])}},
        {"data": {"y": np.ma.array(y, mask=[1, 0, 0, 0])}},
        {"data": frame},
        {"data": frame.rename(columns={"z": "x"})},
        {"data": frame[::-1]},
        {"data": {"y": pandas.Series(y)}},
        {"data": {"y": pandas.Series(y, index=[3, 2, 1, 0])}},
        {"tol": 1e-3},
        {"args": 2.0},
        {"args": (2.0, 3.0)},
        {"options": {"eps": 1e-3}},
        {"method": "SLSQP"},
        {"method": "SLSQP", "constraints": LinearConstraint(np.eye(3), 0, 1)},
        {"method": "SLSQP", "constraints": LinearConstraint(np.eye(3), 0, 2)},
        {"method": "SLSQP", "constraints": {"type": "ineq", "fun": sum, "args": (1.0,)}},
        {"method": "SLSQP", "constraints": [{"type": "ineq", "fun": sum, "args": (2.0,)}]},
    ]
    assert len({key_of(**other) for other in others}) == len(others)
    same = [{"args": 2.0}, {"args": (2.0,)}, {"args": np.float64(2.0)}, {"args": 2.0, "method": "l-bfgs-b"}]
    assert len({key_of(**each) for each in same}) == 1
    assert key_of() == key_of(options={"iprint": -1}), "what is printed decides nothing"


# -- options ---------------------------------------------------------------------------------------

VALUES = {
    "adaptive": True, "maxCGit": 5, "eta": 0.1, "stepmx": 5.0, "accuracy": 1e-9, "minfev": 0.0, "rescale": 1.5,
    "scale": None, "offset": None, "direc": np.eye(3)[::-1], "initial_simplex": np.vstack([X0, X0 + 0.1 * np.eye(3)]),
    "norm": 2.0, "c1": 1e-3, "c2": 0.3, "eps": 1e-5, "finite_diff_rel_step": 1e-5, "sparse_jacobian": False,
    "factorization_method": "AugmentedSystem", "inexact": False, "maxls": 7, "maxcor": 3, "disp": False, "iprint": -1,
    "maxiter": 60, "maxfev": 400, "maxfun": 400, "verbose": 0, "return_all": True, "xrtol": 1e-9, "rhobeg": 0.5,
    "catol": 1e-3, "f_target": -np.inf, "max_trust_radius": 10.0, "subproblem_maxiter": 20,
    "initial_trust_radius": 0.5, "initial_tr_radius": 0.5, "final_tr_radius": 1e-5, "feasibility_tol": 1e-6,
    "initial_constr_penalty": 0.5, "initial_barrier_parameter": 0.2, "initial_barrier_tolerance": 0.2,
    "barrier_tol": 1e-6, "tol": 1e-5, "xatol": 1e-3, "fatol": 1e-3, "xtol": 1e-3, "ftol": 1e-4, "gtol": 1e-3,
}  # fmt: skip


@pytest.mark.parametrize(
    ("method", "option"),
    [pytest.param(m, option, id=f"{m.name}-{option}") for m in ALL for option in sorted(m.options)],
)
def test_every_option_is_used_as_scipy_uses_it(method, option):
    value = copy.deepcopy(VALUES[option])  # SciPy writes to some
    if option == "scale":
        value = False if method.name == "COBYQA" else np.array([1.0, 2.0, 1.0])
    elif option == "offset":
        value = np.array([0.1, 0.0, 0.0])
    options = {option: value} | ({"ftol": 0.0} if method.name == "L-BFGS-B" and option != "ftol" else {})
    if (method.name, option) == ("TNC", "scale"):  # by itself SciPy's own answer differs from run to run
        options["offset"] = np.zeros(3)
    dish = Dish((1.0, 1.0, 0.3))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", message="Unknown solver options")
                own = scipy.optimize.minimize(dish, X0, options=copy.deepcopy(options), **needs(method, dish))
        except (scipy.optimize.OptimizeWarning, TypeError):
            pytest.skip("this SciPy does not have it")

        found = minimize(dish, X0, store=None, name="dish", options=options, **needs(method, dish))

    assert np.array_equal(found.x, own.x)
    assert found.success == own.success


@pytest.mark.parametrize(
    ("method", "arguments", "words"),
    [
        ("BFGS", {"options": {"maxcor": 5}}, "BFGS has no option 'maxcor'"),
        ("BFGS", {"options": {"gtoll": 1e-3}}, "BFGS has no option 'gtoll'; it has c1, c2"),
        ("L-BFGS-B", {"options": {"workers": 2}}, "options hold workers"),
        ("trust-constr", {"options": {"ftol": 1}}, "trust-constr has no option 'ftol'"),
        ("TNC", {"options": {"maxiter": 5}}, "TNC has no option 'maxiter'"),
        ("BFGS", {"options": {"hess_inv0": np.eye(3)}}, "hess_inv0; the store gives it"),
        ("BFGS", {"bounds": [(0, 1)] * 3}, "BFGS does not use bounds"),
        ("BFGS", {"constraints": LinearConstraint(np.eye(3))}, "BFGS does not use constraints"),
        ("BFGS", {"hess": lambda x: np.eye(3)}, "BFGS does not use hess"),
        ("CG", {"hessp": lambda x, p: p}, "CG does not use hessp"),
        ("dogleg", {"hessp": lambda x, p: p}, "dogleg does not use hessp"),
        ("Powell", {"jac": lambda x: x}, "Powell does not use jac"),
        ("Nelder-Mead", {"jac": "2-point"}, "Nelder-Mead does not use jac"),
        ("Newton-CG", {}, "Newton-CG needs jac"),
        ("trust-ncg", {"jac": "2-point"}, "trust-ncg needs jac"),
        ("trust-exact", {"jac": lambda x: x}, "trust-exact needs hess"),
        ("trust-constr", {"hess": "2-point"}, "differences of a gradient"),
        ("L-BFGS-B", {"bounds": [(0, 1)] * 2}, "bounds has 2 entries"),
        ("L-BFGS-B", {"bounds": [(0, 1), (2, 1), (0, 1)]}, r"bounds of entry 1 of x are \[2.0, 1.0\]"),
        ("L-BFGS-B", {"bounds": [(0, 1), (np.nan, 1), (0, 1)]}, "bounds of entry 1"),
        ("L-BFGS-B", {"bounds": 3}, "bounds cannot be read"),
        ("L-BFGS-B", {"bounds": Bounds([0, 0], [1, 1])}, "bounds cannot be read"),
        ("BFGS", {"tol": -1.0}, "tol is -1.0"),
        ("BFGS", {"tol": "small"}, "tol is 'small'"),
        ("BFGS", {"options": {"gtol": "small"}}, r"options\['gtol'\] is 'small'"),
        ("BFGS", {"callback": 3}, "callback is int"),
        ("BFGS", {"jac": lambda x: np.zeros(2)}, "the gradient has 2 numbers, x has 3"),
        ("BFGS", {"jac": True}, r"fun did not return \(value, gradient\)"),
        ("BFGS", {"store": "fits.h5"}, "store is str; give what gamwarm.open"),
        ("BFGS", {"x0": []}, "x0 is empty"),
        ("BFGS", {"x0": [[0.0, 1.0]]}, r"x0 has shape \(1, 2\)"),
        ("BFGS", {"x0": [1j, 0.0]}, "x0 must be a vector of real numbers"),
        ("BFGS", {"fun": lambda x: None}, "fun returned NoneType"),
        ("BFGS", {"fun": lambda x: x}, "fun returned an array of shape"),
        ("BFGS", {"fun": "rosen"}, "fun is str"),
        ("BFGS", {"options": [1]}, "options is list"),
        ("SLSQP", {"constraints": 3}, "constraints is int"),
        (lambda *a, **k: None, {}, "use one of Nelder-Mead"),
        ("BFGS", {"data": {"f": lambda: 1}}, r"data\['f'\] is function"),
        ("BFGS", {"options": {"norm": {1, 2}}}, r"options\['norm'\] is set"),
    ],
)
def test_what_would_not_be_used_is_refused_by_name(method, arguments, words):
    with pytest.raises((InvalidInput, InvalidType), match=words):
        minimize(
            **{"fun": Dish((1.0, 1.0, 0.3)), "x0": X0, "store": None, "name": "dish", "method": method} | arguments
        )


# -- arguments -------------------------------------------------------------------------------------


@pytest.mark.parametrize("args", [0.5, (0.5,), np.array([0.5, 0.5, 0.5]), (0.25, 0.25), [0.5, 0.0, 0.0]], ids=repr)
@pytest.mark.parametrize("method", ["BFGS", "Powell", "trust-exact", "trust-constr"])
def test_args_reach_function_gradient_and_hessian_as_scipy_passes_them(method, args):
    dish, how = Dish((1.0, 1.0, 0.3)), METHODS[method.lower()]
    given = np.asarray(args) if isinstance(args, list) else args
    arguments = needs(how, dish) | ({"jac": dish.gradient} if how.jac else {})
    own = scipy.optimize.minimize(dish, X0, args=given, **arguments)

    found = minimize(dish, X0, given, store=None, name="dish", **arguments)

    assert np.array_equal(found.x, own.x)


@pytest.mark.parametrize("x0", [0.5, np.float64(0.5), np.array(0.5), [0.5], np.array([0]), 0], ids=repr)
def test_a_single_number_may_be_a_number(x0, store):
    for where in (None, store, store):
        found = minimize(lambda x: (x[0] - 2.0) ** 2, x0, store=where, name="number", rho=slice(None))
        assert found.x == pytest.approx([2.0], abs=1e-4)
    assert found.start.source == "exact"


@pytest.mark.parametrize("method", [m.name for m in ALL if m.name != "L-BFGS-B"])
def test_a_tolerance_is_scipys(method):
    dish = Dish((1.0, 1.0, 0.3))
    own = scipy.optimize.minimize(dish, X0, tol=1e-2, **needs(METHODS[method.lower()], dish))

    found = minimize(dish, X0, store=None, name="dish", tol=1e-2, **needs(METHODS[method.lower()], dish))

    assert np.array_equal(found.x, own.x)


def test_the_method_is_chosen_as_scipy_chooses_it():
    chosen = [
        minimize_problem(sum, X0, name="f", **arguments)
        for arguments in ({}, {"bounds": [(0, 1)] * 3}, {"constraints": LinearConstraint(np.eye(3), 0, 1)})
    ]
    named = [
        minimize_problem(sum, X0, name="f", **arguments)
        for arguments in (
            {"method": "BFGS"},
            {"bounds": [(0, 1)] * 3, "method": "L-BFGS-B"},
            {"constraints": LinearConstraint(np.eye(3), 0, 1), "method": "SLSQP"},
        )
    ]
    assert [problem.key for problem in chosen] == [problem.key for problem in named]


@pytest.mark.filterwarnings("ignore:delta_grad == 0.0:UserWarning")
@pytest.mark.parametrize("method", [m.name for m in ALL if m.constraints])
def test_constraints_hold_from_every_start(method, store):
    constraints = [{"type": "ineq", "fun": lambda x: 1.0 - x.sum()}]
    for centre, where in (((1.0, 1.0, 0.3), store), ((0.9, 1.1, 0.2), store), ((0.9, 1.1, 0.2), store)):
        found = minimize(
            Dish(centre), X0, store=where, name="dish", method=method, constraints=constraints,
            data={"centre": np.asarray(centre)},
        )  # fmt: skip
        own = scipy.optimize.minimize(Dish(centre), X0, method=method, constraints=constraints)
        assert found.success
        assert found.x.sum() <= 1.0 + 1e-3
        assert found.fun == pytest.approx(own.fun, abs=1e-3)


@pytest.mark.parametrize("hess", ["2-point", "cs", scipy.optimize.BFGS(), scipy.optimize.SR1()], ids=str)
def test_hessians_by_differences_and_updates_are_passed_on(hess):
    dish = Dish((1.0, 1.0, 0.3))
    for _ in range(2):  # an update strategy has a memory: each search gets a fresh one
        found = minimize(dish, X0, store=None, name="dish", method="trust-constr", jac=dish.gradient, hess=hess)
        assert found.success
    if not isinstance(hess, str):
        assert not hasattr(hess, "B") or hess.B is None


def test_a_product_with_the_hessian_will_do(store):
    dish = Dish((1.0, 1.0, 0.3))
    for where in (None, store, store):
        found = minimize(
            dish, X0, store=where, name="dish", method="trust-krylov", jac=dish.gradient,
            hessp=lambda x, p: dish.hessian(x) @ p,
        )  # fmt: skip
        assert found.success


# -- callbacks and limits --------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["xk", "intermediate_result"])
@pytest.mark.parametrize("method", ALL, ids=ids)
def test_a_callback_is_called_and_may_stop_the_search(method, style, store):
    seen = []

    def plain(xk, state=None):
        seen.append(np.array(xk))
        if len(seen) == 2:
            raise StopIteration

    def result(intermediate_result):
        assert np.isfinite(intermediate_result.fun)
        plain(intermediate_result.x)

    stopped, _ = run(method, store, callback=plain if style == "xk" else result)

    assert len(seen) == 2
    assert all(x.shape == (3,) for x in seen)
    assert not stopped.success
    assert (stopped.status, "StopIteration" in stopped.message) == (99, True)
    assert stopped.start_used is None
    assert not stopped.kept.artifact.written
    if stopped.kept.record.written:
        assert store.get_record(stopped.start.key).kind == "checkpoint"
        seen.extend([None, None])
        resumed, _ = run(method, store, callback=plain if style == "xk" else result)
        assert resumed.success
        assert resumed.start.is_checkpoint


def test_a_callback_may_stop_trust_constr_by_its_answer():
    seen = []
    run(METHODS["trust-constr"], None, callback=lambda x, state: seen.append(state.nit) or len(seen) == 2)

    assert len(seen) == 2


def test_what_a_callback_raises_comes_out(store):
    run(METHODS["bfgs"], store)

    def broken(xk):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        run(METHODS["bfgs"], store, (0.5, 1.4, 0.0), callback=broken)


@pytest.mark.parametrize("method", [m for m in ALL if {"maxiter", "maxfev", "maxfun"} & m.options], ids=ids)
def test_no_run_takes_more_than_it_is_allowed_and_the_next_one_continues(method, store):
    limit = "maxiter" if "maxiter" in method.options else "maxfun"
    few = 12 if method.name in ("Nelder-Mead", "COBYLA", "COBYQA") or limit == "maxfun" else 2
    values = []
    for _ in range(3):
        found, dish = run(method, store, (6.0, -5.0, 3.0), options={limit: few})
        spent = dish.calls if limit == "maxfun" or method.name == "COBYLA" else found.nit
        allowed = few * 4 if limit == "maxfun" else few  # SciPy's TNC counts an evaluation with its differences once
        assert spent <= allowed + (method.name in ("COBYLA",))
        values.append(found.fun)
    assert values[2] <= values[1] <= values[0]


@pytest.mark.parametrize("method", ["BFGS", "L-BFGS-B", "CG", "SLSQP"])
def test_a_search_from_a_related_fit_that_ran_out_is_not_followed_by_a_cold_one(method, store):
    run(METHODS[method.lower()], store, (1.0, 1.0, 0.3))

    found, _ = run(METHODS[method.lower()], store, (9.0, -7.0, 3.0), options={"maxiter": 2})

    assert found.start.source == "transfer"
    assert (found.success, found.nit) == (False, 2)
    assert not [note for note in found.notes if "searched too" in note]


def test_a_limit_holds_for_all_searches_of_one_run_together(store, tmp_path):
    """From a record on a false plateau: one search to it, a second one away from it."""

    def well(x):
        return float(-2.0 * np.exp(-x[0]) / (1.0 + np.exp(-x[0])) ** 2 + np.log(np.cosh(0.5 * (x[1] - 5.0))))

    def again(where):
        arguments = {"name": "well", "rho": [0], "rho_bound": 20.0, "options": {"maxiter": 5}}
        return minimize(well, [2.0, 5.0], store=where, **arguments)

    honest = again(store)
    record = store.get_record(honest.start.key)
    beta = [np.array(block) for block in record.block_beta]
    beta[0][0] = 20.0
    with gamwarm.open(tmp_path / "wrong.h5") as wrong:
        spoiled = replace(record, rho=[13.0], block_beta=beta, objective=well([13.0, 20.0]))
        assert wrong.put_record(spoiled).written
        found = again(wrong)

    assert "had stopped on a false plateau" in found.notes[0]
    assert found.nit <= 5


# -- starts that fail ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["BFGS", "L-BFGS-B", "Nelder-Mead"])
@pytest.mark.parametrize("rho", [None, [0]])
def test_a_start_at_which_the_function_raises_does_not_fail_the_fit(method, rho, store):
    def fit(centre, where):
        def root(x):
            if x[0] > centre + 1.5:
                raise ArithmeticError("math domain error")
            return float((x[0] - centre) ** 2)

        arguments = {"name": "root", "data": {"rows": np.zeros(int(centre * 10))}, "method": method, "rho": rho}
        return minimize(root, [0.5], store=where, **arguments)

    fit(3.0, store)
    cold, warm = fit(0.6, None), fit(0.6, store)

    assert warm.start.source == "transfer"
    assert warm.success
    assert warm.x == pytest.approx(cold.x, abs=1e-3)
    assert "ArithmeticError" in "".join(warm.notes)


def test_a_function_that_raises_at_its_own_cold_start_fails_as_it_does_without_a_store(store):
    def broken(x):
        raise ArithmeticError("always")

    with pytest.raises(ArithmeticError, match="always"):
        minimize(broken, [0.5], store=store, name="broken")


def wells(depths):
    places = np.array([0.5, 10.0])
    return lambda x: float(-(depths * np.exp(-((x[0] - places) ** 2))).sum())


# BFGS on smoothing parameters has its own metric, which does not doubt a start that is an optimum
# of this function too.
@pytest.mark.parametrize(
    ("method", "rho"), [("BFGS", None), *itertools.product(["L-BFGS-B", "CG", "Powell", "TNC"], [None, [0]])]
)
def test_a_start_in_a_worse_basin_than_x0_is_left(method, rho, store):
    arguments = {"name": "wells", "method": method, "rho": rho}
    minimize(wells([0.0, 5.0]), [9.0], store=store, data={"rows": np.zeros(5)}, **arguments)
    cold = minimize(wells([5.0, 1.0]), [0.0], store=None, data={"rows": np.zeros(4)}, **arguments)
    warm = minimize(wells([5.0, 1.0]), [0.0], store=store, data={"rows": np.zeros(4)}, **arguments)

    assert (warm.start.source, warm.success, warm.start_used) == ("transfer", True, False)
    assert warm.fun == pytest.approx(cold.fun, abs=1e-6)


@pytest.mark.parametrize(
    ("method", "changes"),
    [("BFGS", {}), ("L-BFGS-B", {}), ("Powell", {}), ("Nelder-Mead", {}), ("SLSQP", {"rho": [0]})],
)
def test_a_record_of_another_function_is_no_answer_of_this_one(method, changes, store, caplog):
    arguments = {"name": "wells", "method": method, **changes}
    minimize(lambda x: float((x[0] - 10.0) ** 2) - 100.0, [0.0], store=store, **arguments)
    cold = minimize(wells([5.0, 1.0]), [0.0], store=None, **arguments)
    with caplog.at_level(logging.WARNING, "gamwarm"):
        warm = minimize(wells([5.0, 1.0]), [0.0], store=store, **arguments)

    assert warm.start.source == "exact"
    assert warm.fun <= cold.fun + 1e-6
    assert not warm.start_used
    assert "the evaluation counts" in caplog.text


def test_no_success_is_reported_that_scipy_did_not_give(store):
    """A kink: the search gives up at it, cold and from wherever it is resumed."""

    def kink(x):
        return abs(x[0] - 1.0) + abs(x[1] + 1.0) ** 1.1

    own = scipy.optimize.minimize(kink, [0.0, 0.0], method="BFGS")
    found = [minimize(kink, [0.0, 0.0], store=where, name="kink") for where in (None, store, store, store)]

    assert not own.success
    assert not any(each.success for each in found)
    assert sum(each.nfev for each in found[2:]) <= 2 * found[0].nfev, "repeats are not slower"
    assert len(store) == 1


@pytest.mark.parametrize("spoil", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize("method", ["BFGS", "L-BFGS-B", "CG", "Nelder-Mead", "trust-constr"])
def test_a_start_that_is_no_number_is_not_followed(spoil, method, store):
    run(METHODS[method.lower()], store)

    def spoiled(start):
        beta = [np.array(b) for b in start.block_beta]
        beta[0][1] = spoil
        return replace(start, block_beta=beta)

    cold, _ = run(METHODS[method.lower()], None, (0.9, 1.1, 0.2))
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        found, _ = run(METHODS[method.lower()], InterceptingStore(store, spoiled), (0.9, 1.1, 0.2))

    assert found.success
    assert found.x == pytest.approx(cold.x, abs=1e-3)


def test_labels_and_parents_are_passed_on(store):
    first, _ = run(METHODS["bfgs"], store, attributes={"site": "north"})
    near, _ = run(METHODS["bfgs"], store, (0.9, 1.1, 0.2), parent=first.kept)

    assert store.get_record(first.start.key).attributes == {"site": "north"}
    assert near.start.parent == first.kept.artifact.entry_id
    assert near.problem.key == near.start.key


def test_a_job_whose_time_is_up_ends_the_search_and_the_next_one_continues(tmp_path):
    with gamwarm.open(tmp_path / "fits.h5") as store, store.walltime(deadline=0.0):
        stopped, _ = run(METHODS["bfgs"], store)
    with gamwarm.open(tmp_path / "fits.h5") as store:
        resumed, _ = run(METHODS["bfgs"], store)

    assert (stopped.success, stopped.nit) == (False, 1)
    assert stopped.kept.stopped
    assert resumed.success
    assert resumed.start.is_checkpoint


def test_the_problem_of_a_call_is_known_without_evaluating_anything():
    keys = {key for key, _ in itertools.groupby(key_of(callback=print, parent=None, store=None) for _ in range(2))}

    assert keys == {key_of()}
    with pytest.raises(GamwarmError, match="name is empty"):
        key_of(name="")
