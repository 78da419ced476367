"""The cases of a product that stand in the default suite have every value, several times."""

from itertools import combinations, permutations, product

import pytest
from covering import covering

pytest_plugins = ["pytester"]

each_product = pytest.mark.parametrize("sizes", [(23, 20, 3), (14, 2, 16, 3), (5, 3), (2, 2), (7,)])


def cases_of(sizes: tuple[int, ...]) -> list[tuple[int, ...]]:
    return list(product(*map(range, sizes)))


@each_product
@pytest.mark.parametrize("n", [1, 2, 3, 6, 9])
def test_every_value_is_in_a_case_that_is_kept(sizes, n):
    cases = cases_of(sizes)
    kept = [cases[place] for place in covering(cases, n)]
    assert [set(axis) for axis in zip(*kept, strict=True)] == [set(range(size)) for size in sizes]
    assert len(kept) <= len(cases) / n + sum(sizes)


def test_every_pair_of_values_meets_where_the_third_axis_has_n():
    cases = cases_of((23, 20, 3))
    kept = [cases[place] for place in covering(cases, 3)]
    for one, two in combinations(range(3), 2):
        assert len({(case[one], case[two]) for case in kept}) == (23, 20, 3)[one] * (23, 20, 3)[two]


def test_each_value_meets_several_of_each_other_axis():
    cases = cases_of((23, 20, 3))
    kept = [cases[place] for place in covering(cases, 9)]
    for one, two in permutations(range(3), 2):
        for value in range((23, 20, 3)[one]):
            assert len({case[two] for case in kept if case[one] == value}) >= 3


def test_the_rest_of_a_product_is_slow_and_no_case_is_lost(pytester):
    pytester.makeconftest(
        "import pytest\n"
        "from covering import mark_slow_cases\n"
        "@pytest.hookimpl(tryfirst=True)\n"
        "def pytest_collection_modifyitems(items): mark_slow_cases(items)\n"
    )
    pytester.makepyfile(
        "import pytest\n"
        "@pytest.fixture(params='xyz')\n"
        "def letter(request): return request.param\n"
        "@pytest.mark.parametrize(('a', 'b'), [(i, -i) for i in range(6)])\n"
        "@pytest.mark.usefixtures('letter')\n"
        "@pytest.mark.one_in(3)\n"
        "def test_one(a, b): pass\n"
        "def test_other(): pass\n"
    )
    fast = pytester.runpytest("-m", "not slow", "-p", "no:cacheprovider")
    slow = pytester.runpytest("-m", "slow", "-p", "no:cacheprovider")
    fast.assert_outcomes(passed=7, deselected=12)
    slow.assert_outcomes(passed=12, deselected=7)
