"""States of metrics: split, shuffled and merged in any order they give what one pass gives."""

import numpy as np
import pytest

from ldm_jax import build
from ldm_jax.evaluation import fd, frechet, kid
from ldm_jax.evaluation.moments import Moments
from ldm_jax.evaluation.row_store import RowStore, stored

RNG = np.random.default_rng(0)
X = RNG.standard_normal((97, 6)) @ RNG.standard_normal((6, 6)) + 30
Y = RNG.standard_normal((90, 6)) + 30


def parts(rows, count, seed):
    order = np.random.default_rng(seed).permutation(len(rows))
    return [(rows[chunk], chunk) for chunk in np.array_split(order, count)]


def state_of(metric, rows, count=1, seed=0):
    """The state of batches on two hosts."""
    hosts = [metric.init(), metric.init()]
    for i, (batch, numbers) in enumerate(parts(rows, count, seed)):
        hosts[i % 2] = metric.update(hosts[i % 2], batch.astype(np.float64), numbers)
    return metric.merge(hosts[1], hosts[0])


@pytest.mark.parametrize('spec', [dict(name='fd'), dict(name='kid', subsets=5, subset_size=20)])
def test_the_split_into_batches_and_hosts_changes_nothing(spec):
    metric = build.build('evaluation', spec)
    whole = metric.result(state_of(metric, X), state_of(metric, Y))
    for count, seed in ((8, 1), (30, 2)):
        again = metric.result(state_of(metric, X, count, seed), state_of(metric, Y, count, seed))
        for name in whole:
            assert again[name] == pytest.approx(whole[name], rel=1e-10)


def test_moments_are_numpys():
    state = Moments()
    for rows, numbers in parts(X, 7, 3):
        state = state.add(rows, numbers)
    np.testing.assert_allclose(state.mean, X.mean(0), rtol=1e-13)
    np.testing.assert_allclose(state.covariance, np.cov(X, rowvar=False), rtol=1e-11)
    shifted = Moments().add(X + 1e6) | Moments().add(X[:3] + 1e6)
    np.testing.assert_allclose(
        shifted.covariance, np.cov(np.concatenate([X, X[:3]]), rowvar=False), rtol=1e-7
    )


@pytest.mark.parametrize('root', frechet.ROOTS)
def test_the_distance_of_gaussians_is_the_closed_form(root):
    a, b = RNG.uniform(0.1, 3, (2, 5))
    basis = np.linalg.qr(RNG.standard_normal((5, 5)))[0]
    one, two = (basis * a) @ basis.T, (basis * b) @ basis.T  # covariances that commute
    mean = RNG.standard_normal(5)
    expected = mean @ mean + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    found = frechet.distance(mean, one, 0 * mean, two, frechet.ROOTS[root])
    assert found == pytest.approx(expected, rel=1e-10)


def test_ill_conditioned_covariances_have_their_distance():
    scales = np.logspace(0, -16, 9)  # the last directions have no variance to speak of
    basis = np.linalg.qr(RNG.standard_normal((9, 9)))[0]
    one = (basis * scales) @ basis.T
    singular = (basis * np.where(np.arange(9) < 4, scales, 0)) @ basis.T
    zero = np.zeros(9)
    assert frechet.distance(zero, one, zero, 4 * one) == pytest.approx(scales.sum(), rel=1e-7)
    assert frechet.distance(zero, singular, zero, singular) == pytest.approx(0, abs=1e-7)
    one_axis, another = np.diag([1.0, 0, 0]), np.diag([0, 1.0, 0])  # no overlap at all
    assert frechet.distance(zero[:3], one_axis, zero[:3], another) == pytest.approx(2)


def test_fd_of_samples_is_that_of_their_moments():
    metric = fd.Metric()
    found = metric.result(state_of(metric, X, 5), state_of(metric, Y, 4))['fd']
    moments = X.mean(0), np.cov(X, rowvar=False), Y.mean(0), np.cov(Y, rowvar=False)
    assert found == pytest.approx(frechet.distance(*moments, frechet.sqrtm), rel=1e-9)
    assert metric.result(state_of(metric, X), state_of(metric, X))['fd'] == pytest.approx(0, abs=1e-9)


def test_rows_beyond_the_limit_lie_on_disk(tmp_path):
    small = RowStore(folder=tmp_path, limit=X.nbytes // 3)
    for rows, numbers in parts(X, 9, 4):
        small = small.add(rows, numbers)
    held = [rows.nbytes for _, rows in small.chunks if not isinstance(rows, np.memmap)]
    assert 0 < sum(held) <= X.nbytes // 3
    np.testing.assert_array_equal(small.rows, X)
    assert not list(tmp_path.iterdir())  # the file has no name: nothing stays behind


def test_rows_that_cannot_be_counted_are_named():
    metric = kid.Metric(subset_size=50)
    bad = X.copy()
    bad[[3, 5], 2] = np.nan
    for kept in (Moments(), RowStore()):
        with pytest.raises(ValueError, match='2 images are not finite, the first of them image 103'):
            kept.add(bad, np.arange(100, 197))
        with pytest.raises(ValueError, match='5 wide follow features 6 wide'):
            kept.add(X, np.arange(97)).add(X[:, :5], np.arange(97))
    with pytest.raises(ValueError, match='Image 7 was counted twice'):
        metric.result(stored(X) | stored(X[:1], [7]), stored(Y))
    with pytest.raises(ValueError, match='subset_size=50 needs at least 50 images; there are 40'):
        metric.result(stored(X), stored(Y[:40]))
    with pytest.raises(ValueError, match='at least 2 images; got 1'):
        fd.Metric().result(Moments().add(X[:1]), Moments().add(Y))
    with pytest.raises(ValueError, match="No evaluation module 'fidd'; have"):
        build.build('evaluation', dict(name='fidd'))


def test_psnr_and_ssim_of_images_known_in_closed_form():
    """Their parity with scikit-image is in test_references.py."""
    x = RNG.uniform(-1, 1, (3, 16, 17, 3))
    psnr, ssim = (build.build('evaluation', dict(name=name)) for name in ('psnr', 'ssim'))
    np.testing.assert_allclose(psnr.scores(x, x + 0.02)[:, 0], 40, rtol=1e-12)
    assert psnr.scores(x, x).tolist() == [[100]] * 3
    np.testing.assert_allclose(ssim.scores(x, x), 1)
    flat = ssim.scores(0 * x + 0.5, 0 * x)[:, 0]  # two constants: only the means' term is not 1
    np.testing.assert_allclose(flat, 0.02**2 / (0.5**2 + 0.02**2), rtol=1e-9)
    state = psnr.update(psnr.init(), psnr.scores(x, x + 0.02), np.arange(3))
    assert psnr.result(state) == {'psnr': pytest.approx(40)}
    with pytest.raises(ValueError, match='11 pixels cannot be taken'):
        ssim.scores(x[:, :10], x[:, :10])
    with pytest.raises(ValueError, match='one shape'):
        psnr.scores(x, x[:2])
