"An example as the site shows it: without the tests that stand in its cell"
import ast, re

checks = re.compile(r'test_(eq|ne|fail|close|is|is_not|warns|stdout|shuffled|sig|eq_type|array_eq|fig_exists)$|test$')

def is_check(node):
    "Does a statement only check something? A call of fastcore's `test_...`, an assert, or a block of these"
    if isinstance(node, ast.Assert): return True
    if isinstance(node, (ast.For,ast.With)): return all(map(is_check, node.body))
    call = node.value if isinstance(node, ast.Expr) else None
    return isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and bool(checks.match(call.func.id))

def binds(node): return any(isinstance(o, ast.NamedExpr) for o in ast.walk(node))

def statements(code):
    "The statements of a cell; [] for what is not Python alone, such as a line of magic"
    try: return ast.parse(code).body
    except SyntaxError: return []

def is_test(code, has_output=False):
    "Is a cell there for its tests alone? Nothing else is in it, or nothing that leaves anything to see"
    nodes = statements(code)
    found = [o for o in nodes if is_check(o)]
    if len(found) == len(nodes): return bool(nodes)
    return bool(found) and not has_output

def without_tests(code):
    "`code` without its statements that only check, and the comments beside these"
    lines,drop = code.splitlines(),set()
    nodes = statements(code)
    for o in nodes:
        rows = set(range(o.lineno-1, o.end_lineno))
        shared = {i for n in nodes if n is not o for i in range(n.lineno-1, n.end_lineno)} & rows # `a = 1; test_eq(a, 1)`
        if is_check(o) and not binds(o) and not shared: drop |= rows
    return re.sub(r'\n{3,}', '\n\n', '\n'.join(s for i,s in enumerate(lines) if i not in drop)).strip('\n')
