"""The conclusions of experiments/solvers, as its README writes them, in the numbers that were recorded."""

import csv
import pathlib

import configs

FOLDER = pathlib.Path(__file__).parents[2] / 'experiments' / 'solvers'
BUDGETS = (4, 5, 7, 10, 20, 40)
FAST = ('deis', 'ipndm', 'unipc(max_order=2)', 'dpmpp_2m')
THIRD = ('dpm_solver_multistep(max_order=3)', 'unipc(max_order=3)')


def recorded(name):
    with (FOLDER / name).open() as file:
        return list(csv.DictReader(file))


PAIRS = {(int(row['evaluations']), row['solver']): row for row in recorded('pairs.csv')}


def value(budget, solver, name='error'):
    return float(PAIRS[budget, solver][name])


def ahead(budget, solver):
    """How many times smaller than Euler's the error is."""
    return value(budget, 'euler') / value(budget, solver)


def test_the_table_is_of_the_sweep_that_is_there():
    vary = configs.plain(configs.load(str(FOLDER / 'sweep.py')))['vary']
    assert vary['evaluations'] == list(BUDGETS)
    solvers, grids = len(vary['sampler']), len(vary['grid'])
    assert solvers >= 15
    assert grids >= 4
    assert len(vary['seed']) >= 3
    table = recorded('table.csv')
    assert len(table) == solvers * grids * len(BUDGETS)
    assert {row['error_count'] for row in table} == {'48'}
    assert len(PAIRS) == solvers * len(BUDGETS)
    for row in table:
        assert float(row['error_low']) <= float(row['error']) <= float(row['error_high'])


def test_multistep_solvers_are_three_times_ahead_of_euler_from_seven_evaluations_on():
    for budget in BUDGETS[2:]:
        for solver in FAST:
            assert ahead(budget, solver) > 3, (budget, solver)
            assert value(budget, solver, 'over_euler_high') < 0


def test_those_of_order_three_are_not_so_before_ten():
    for solver in THIRD:
        assert 1 < ahead(7, solver) < 2
        assert ahead(10, solver) > 3


def test_heun_is_behind_euler_up_to_ten():
    for budget in BUDGETS:
        if budget <= 10:
            assert value(budget, 'heun', 'over_euler_low') > 0, budget
        else:
            assert value(budget, 'heun', 'over_euler_high') < 0, budget


def test_at_four_and_five_evaluations():
    assert value(4, 'ipndm', 'over_best') == 0
    assert value(4, 'unipc(max_order=2)', 'over_best_low') <= 0
    assert value(5, 'dpmpp_2m', 'over_best') == 0
    assert value(5, 'ipndm', 'over_best_low') <= 0
    for budget in (4, 5):
        assert value(budget, 'deis', 'over_best_low') > 0
        assert value(budget, 'deis') > value(budget, 'ipndm')
