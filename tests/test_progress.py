"""Progress in a log."""

from ldm_jax.progress import progress


def test_items_pass_through_and_the_end_is_a_line(capsys):
    assert list(progress(range(3), 5, 'encoding', done=2, every=1e9)) == [0, 1, 2]
    assert capsys.readouterr().err.splitlines() == ['encoding: 5 of 5, 0 s left']


def test_lines_come_at_intervals_with_an_estimate(capsys):
    list(progress(range(4), 4, 'training', every=0.0))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert lines[1].startswith('training: 2 of 4, ')
