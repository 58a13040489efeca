"Checks and rules, beyond what their notebook shows"
import inspect, math
import pytest
from distill_nb.core import Count, Flag, OneOf, Range, check_count, check_number, checked

@pytest.mark.parametrize('v', [0, -1, 1.5, math.nan, math.inf, 'three', '3', None, [1,2], True])
def test_what_is_not_a_count(v):
    with pytest.raises(ValueError, match='`bs` must be a whole number of at least 1'): check_count('bs', v)

def test_bounds_of_a_count():
    assert check_count('bs', 16.) == 16 and check_count('steps', 0, 0) == 0
    with pytest.raises(ValueError, match='at least 2, got 1'): check_count('folds', 1, 2)

@pytest.mark.parametrize('v', [-.1, 1.1, math.nan, 'half', '.5', None, [.5,.5], 10**400, True])
def test_what_is_not_a_share(v):
    with pytest.raises(ValueError, match='`lam` must be a number at least 0 and at most 1'):
        check_number('lam', v, 0, 1)

def test_bounds_that_are_excluded():
    with pytest.raises(ValueError, match='`T` must be a number above 0, got 0'): check_number('T', 0, 0, above=True)

@checked(lam=Range(0, 1), pseudo=OneOf(('probe','source','both')), top=Count(), live=Flag())
def learner(dls, lam=.5, pseudo='probe', top=None, live=False): return lam,pseudo,top,live

@pytest.mark.parametrize('kw,message', [
    (dict(lam=1.5), '`lam` must be a number at least 0 and at most 1, got 1.5'),
    (dict(pseudo='prob'), "`pseudo` must be 'probe', 'source' or 'both', got 'prob'. Did you mean 'probe'?"),
    (dict(top=0), '`top` must be a whole number of at least 1, got 0'),
    (dict(live='no'), "`live` must be True or False, got 'no'")])
def test_messages(kw, message):
    with pytest.raises(ValueError) as e: learner(None, **kw)
    assert str(e.value) == message

def test_a_checked_function_is_itself():
    assert learner(None, 0, top=3) == (0,'probe',3,False) and learner(None, 1, top=2.) == (1,'probe',2,False)
    assert str(inspect.signature(learner)) == "(dls, lam=0.5, pseudo='probe', top=None, live=False)"

def test_methods_are_checked():
    class A:
        @checked(n=Count())
        def f(self, n:int=1)->int: return n
    assert A().f(2.) == 2
    with pytest.raises(ValueError, match='`n`'): A().f(0)
