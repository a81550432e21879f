"""Numbers and pixels of the reference implementations, recorded from their packages (fixtures/README.md)."""

import json
import pathlib

import numpy as np
import pytest

from ldm_jax import build
from ldm_jax.evaluation import names
from ldm_jax.evaluation.moments import Moments
from ldm_jax.evaluation.row_store import stored
from tests.evaluation import inputs

FIXTURES = pathlib.Path(__file__).parent / 'fixtures'
EXPECTED = json.loads((FIXTURES / 'references.json').read_text())
X, Y = inputs.features()


def result(text, x=X, y=Y):
    metric = names.metric(text)
    kept = [
        stored(rows) if 'Store' in type(metric.init()).__name__ else Moments().add(rows) for rows in (x, y)
    ]
    return metric.result(*kept)


@pytest.mark.parametrize('protocol', ['torch_fidelity', 'adm', 'pytorch_fid', 'clean'])
def test_fid_of_shared_features(protocol):
    assert result(f'fid:{protocol}')['fid'] == pytest.approx(EXPECTED['fid'][protocol], rel=1e-6)


def test_fid_of_fewer_images_than_features():
    few = result('fid:torch_fidelity', *inputs.features(9, 12, 3))
    assert few['fid'] == pytest.approx(EXPECTED['fid_singular']['torch_fidelity'], rel=1e-6)


def test_kid_of_shared_features():
    found = result('kid:subsets=20:subset_size=30')
    assert [found['kid'], found['kid_std']] == pytest.approx(EXPECTED['kid']['torch_fidelity'], rel=1e-6)
    # clean-fid has no seed of its own: NumPy's global one was set to 5
    clean = result('kid:clean:subsets=20:subset_size=30:seed=5')['kid']
    assert clean == pytest.approx(EXPECTED['kid']['clean'], rel=1e-6)
    whole = result('kid:clean:subsets=3:seed=5')['kid']  # subsets as large as the smaller set
    assert whole == pytest.approx(EXPECTED['kid']['clean_whole'], rel=1e-6)


def test_inception_score_precision_recall_density_coverage():
    found = result('inception_score', inputs.logits())
    scores = [found['inception_score'], found['inception_score_std']]
    assert scores == pytest.approx(EXPECTED['inception_score']['torch_fidelity'], rel=1e-6)
    found = result('precision_recall')
    expected = EXPECTED['precision_recall']['torch_fidelity']
    assert [found['precision'], found['recall']] == pytest.approx(expected, rel=1e-6)
    for name, value in EXPECTED['density_coverage'].items():
        assert found[name] == pytest.approx(value, rel=1e-6)


def test_ssim_and_psnr_are_scikit_images():
    x, y = inputs.pair()
    for window in ('gaussian', 'uniform'):
        found = names.metric(f'ssim:{window}').scores(x, y)[:, 0]
        np.testing.assert_allclose(found, EXPECTED['ssim'][window], rtol=1e-6)
    np.testing.assert_allclose(names.metric('psnr').scores(x, y)[:, 0], EXPECTED['psnr'], rtol=1e-9)


@pytest.mark.parametrize('size', inputs.SIZES, ids=str)
def test_what_inception_is_given(size):
    image, columns = inputs.image(size), inputs.COLUMNS
    with np.load(FIXTURES / 'resized.npz') as recorded:
        for protocol in ('torch_fidelity', 'adm', 'pytorch_fid', 'clean'):
            prepared = build.build('evaluation.protocols', dict(name=protocol)).prepare(image)
            assert prepared.shape == (1, 299, 299, 3)
            assert prepared.dtype == np.float32
            theirs = 'torch_fidelity' if protocol == 'adm' else protocol  # the resize is the graph's own
            expected = recorded[f'{theirs}_{size[0]}x{size[1]}']
            # 1e-6 of the range of pixels, which is 2
            np.testing.assert_allclose(prepared[0][columns][:, columns], expected, rtol=0, atol=2e-6)


def test_unknown_names_are_refused():
    for text, message in (
        ('fidd', "No evaluation module 'fidd'.*Did you mean 'fid'"),
        ('fid:cleen', "No evaluation.protocols module 'cleen'.*Did you mean 'clean'"),
        ('fid:clip', 'FID is measured with Inception.*that is fd:clip'),
        ('kid:subset=3', "No field of evaluation/kid 'subset'.*subset_size"),
        ('fid:clean:adm', "'adm' should be FIELD=VALUE"),
        ('ssim:round', "No SSIM window 'round'"),
    ):
        with pytest.raises(ValueError, match=message):
            names.metric(text)
    with pytest.raises(ValueError, match="'psnr' is named twice"):
        names.metrics('psnr,psnr')
