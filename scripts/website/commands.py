"The commands of a shell, from their parsers: usage, and a table of options"
import argparse, re

def subparsers(parser):
    "Name -> parser of each sub-command"
    return next((a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction)), {})

def text(action):
    "The help of an option without its default, which has a column"
    said = re.sub(r'\s*\(default: .*?\)|\s*\([\w|]+\)$', '', action.help or '')
    return re.sub(r'\s*\([\w|]+\)$', '', said).strip()

def typ(action):
    "What is to be written after an option; 'flag' where nothing is"
    if action.nargs == 0: return 'flag'
    name = ' or '.join(f'`{o}`' for o in action.choices) if action.choices else getattr(action.type, '__name__', 'str')
    if '|' in name: name = ' or '.join(f'`{o}`' for o in name.split('|'))
    return name + ', one or more'*(action.nargs == '+')

def shown(parser): return [a for a in parser._actions if a.help != argparse.SUPPRESS and not isinstance(a, argparse._HelpAction)]

def usage(parser, width=88):
    "The line as one would write it: arguments in capitals, then the options that there are"
    words = [a.dest.upper() for a in shown(parser) if not a.option_strings]
    for a in (a for a in shown(parser) if a.option_strings):
        value = '' if a.nargs == 0 else f' {a.dest.upper()}' + ' ...'*(a.nargs == '+')
        words.append(f'[{a.option_strings[-1]}{value}]')
    lines = [parser.prog]
    for w in words:
        if len(lines[-1]) + len(w) < width: lines[-1] += f' {w}'
        else: lines.append(f'    {w}')
    return ' \\\n'.join(lines)

def rows(parser, anchor):
    "(name with an anchor, type, default, words) of each argument and option"
    for a in shown(parser):
        name = a.option_strings[-1] if a.option_strings else a.dest.upper()
        default = '' if a.default in (None, False) or not a.option_strings else f'`{a.default}`'
        yield f'[`{name}`]{{#{anchor}-{a.dest.replace("_", "-")}}}', typ(a), default, text(a)

def section(parser, label, level, table, indexed):
    "Heading, usage and options of one command, in Markdown; `table(rows)` makes the table, `indexed(entries)` the index"
    name = parser.prog
    anchor = name.replace(' ', '-').replace('_', '-')
    entries = [f'single: {name}', *(f'pair: {a.option_strings[-1]}; {name}' for a in shown(parser) if a.option_strings)]
    return '\n'.join([f'({label})=', f'{"#"*level} {name}', '', indexed(entries), parser.description or '', '',
                      f'```shell\n{usage(parser)}\n```', '', *table([*rows(parser, anchor)])])

def of_function(f):
    "The parser of a function that is a command, or runs one, else None"
    from distill_nb import cli, infer
    if f is infer.main: return infer.parser()
    name = next((k for k,v in cli.commands.items() if v is f), None)
    return subparsers(cli.parser())[name] if name else None
