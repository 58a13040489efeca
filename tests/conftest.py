import csv, os
import pytest

@pytest.fixture()
def record_fault():
    "Writes one row of the page `sturdy` into the file that $DISTILL_NB_STURDY names: kind, case, what came of it, how often it was tried"
    def record(kind, case, outcome, n=1):
        if path := os.environ.get('DISTILL_NB_STURDY'):
            with open(path, 'a', newline='', encoding='utf-8') as f: csv.writer(f).writerow([kind, case, outcome, n])
    return record
