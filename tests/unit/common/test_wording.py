"""What a reader alone sees is taken out of code, and nothing that does something."""

import ast

import pytest

from cxrscale.common.provenance import canonical_code


@pytest.fixture
def same(tmp_path):
    """Whether two texts of a function's body are the same code."""

    def compare(one: str, other: str) -> bool:
        found = []
        for text in (one, other):
            path = tmp_path / f"{len(found)}.py"
            path.write_text("def run(self, x, log, bar):\n" + "".join(f"    {line}\n" for line in text.splitlines()))
            ast.parse(path.read_text())
            found.append(canonical_code(path))
        return found[0] == found[1]

    return compare


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1\nlog.info('%d images', x)", "x = 1\nlog.warning('%s pictures', str(x))"),
        ("x = 1\nlogger.info('done')", "x = 1"),
        ("x = 1", "x = 1\nself.log.debug(f'{x:.3f} of {len(x)} {\", \".join(sorted(x))}')"),
        ("if x:\n    logging.error('no', exc_info=True)", "if x:\n    logging.error('never')"),
        ("bar.set_postfix(loss=x / 2, refresh=False)", "bar.set_postfix(mean=x)"),
        ("with tqdm(x, desc=f'epoch {x}', unit='update') as bar: pass", "with tqdm(x, desc='round') as bar: pass"),
        ("for y in tqdm(x, 'epoch'): pass", "for y in tqdm(x, 'round'): pass"),
        ("raise StudyError(f'{x} is no number')", "raise StudyError(f'expected a number, got {x!r} of {self.all}')"),
        ("raise StudyError('a' + f'{x}') from None", "raise StudyError('b' + f'{x}') from None"),
        ("raise Interrupted('stopped')", "raise Interrupted('stopped: checkpoint written')"),
        ("x.add_argument('--log', help='a file')", "x.add_argument('--log', help='where')"),
    ],
)
def test_words_do_not_count(same, one, other):
    assert same(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("log.info('%s', x.pop())", "log.info('%s', x)"),
        ("log.info('%s', len(x.take(1)))", "log.info('%s', len(x.take(2)))"),
        ("log.info('%s', (y := x + 1))", "log.info('%s', x)"),
        ("log.info('%s', x.set())", "log.info('%s', x)"),
        ("log.info('%s', [self.step(y) for y in x])", "log.info('%s', x)"),
        ("log.setLevel(10)", "pass"),
        ("x = log.info('a')", "x = 1"),
        ("self.file.write('a')", "self.file.write('b')"),
        ("raise StudyError(f'{x.pop()}')", "raise StudyError(f'{x}')"),
        ("raise StudyError('a')", "raise Interrupted('a')"),
        ("raise SystemExit(75)", "raise SystemExit(1)"),
        ("raise ValueError('too few')", "raise ValueError('none')"),  # a table may give it as a reason
        ("raise UnreadableImageError('cut off')", "raise UnreadableImageError('empty')"),  # stands in quarantine.csv
        ("if x:\n    raise StudyError('a')", "if not x:\n    raise StudyError('a')"),
        ("with tqdm(x, desc='epoch') as bar: pass", "with tqdm(y, desc='epoch') as bar: pass"),
        ("bar.update()", "bar.update(2)"),
    ],
)
def test_what_does_something_counts(same, one, other):
    assert not same(one, other)
