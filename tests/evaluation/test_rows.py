"""What metrics make of a batch: a tiny CLIP pair on eight devices, neighbours, ranks, the infinite-sample estimate."""

import jax
import numpy as np
import pytest

from ldm_jax import trees
from ldm_jax.evaluation import batch, clip_score, fid, names, neighbours
from ldm_jax.evaluation.moments import Moments
from ldm_jax.evaluation.networks import Networks
from ldm_jax.evaluation.row_store import stored
from ldm_jax.models import clip_text, clip_vision
from ldm_jax.text import clip

RNG = np.random.default_rng(0)


@pytest.fixture(scope='module')
def networks():
    tower = dict(width=16, num_layers=1, num_heads=2, projection_width=8)
    modules = {
        'image_encoder': clip_vision.Model(image_size=16, patch_size=8, **tower),
        'text_encoder': clip_text.Model(context_length=12, **tower),
    }
    params = {part: trees.init(module, jax.random.key(0)) for part, module in modules.items()}
    return Networks(modules, params, clip.Tokenizer(context_length=12), tuple(jax.local_devices()))


def test_embeddings_do_not_depend_on_the_batch_or_the_devices(networks):
    images = RNG.integers(0, 256, (5, 20, 24, 3)).astype(np.uint8)
    texts = ['a', 'b', 'a red apple', 'd', 'e']
    metric = names.metric('clip_score:recall=(1,)')
    given = batch.Batch(images, np.arange(5), networks, texts=texts)
    rows = metric.rows(given)
    assert rows.shape == (5, 16)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), np.sqrt(2), rtol=1e-5)
    alone = batch.Batch(images[2:3], np.arange(1), networks, texts=texts[2:3])
    np.testing.assert_allclose(metric.rows(alone), rows[2:3], atol=1e-5)
    features = names.metric('fd:clip').rows(given)  # the same network's, not normalised
    np.testing.assert_allclose(
        features / np.linalg.norm(features, axis=1, keepdims=True), rows[:, :8], atol=1e-5
    )
    assert set(metric.result(stored(rows))) == {'clip_score', 'recall_at_1'}
    with pytest.raises(ValueError, match='uint8'):
        batch.Batch(images / 255.0, np.arange(5), networks)


def test_clip_score_and_recall_are_those_of_known_embeddings():
    e = np.eye(4)
    metric = clip_score.Metric(factor=100, recall=(1, 2))
    # the third image lies nearest to another text; the fourth shares the text of the first
    rows = np.concatenate([e[[0, 1, 0, 3]], e[[0, 1, 2, 0]]], axis=1)
    found = metric.result(stored(rows))
    assert found == {'clip_score': pytest.approx(50), 'recall_at_1': 1.0, 'recall_at_2': 1.0}
    crossed = np.concatenate([e[[0, 1, 2]], e[[1, 0, 2]]], axis=1)
    found = metric.result(stored(crossed))
    assert found['clip_score'] == pytest.approx(100 / 3)
    assert [found['recall_at_1'], found['recall_at_2']] == pytest.approx([1 / 3, 1])


def test_neighbours_are_those_of_all_pairs():
    x, y = RNG.standard_normal((50, 4)), RNG.standard_normal((40, 4))
    pairs = np.linalg.norm(x[:, None] - y, axis=-1)
    far, which = neighbours.nearest(x, y, 3)
    np.testing.assert_allclose(far, np.sort(pairs, 1)[:, :3], atol=1e-7)
    np.testing.assert_array_equal(which, np.argsort(pairs, 1)[:, :3])
    own = np.linalg.norm(x[:, None] - x, axis=-1)
    np.testing.assert_allclose(neighbours.radii(x, 2), np.sort(own, 1)[:, 2], atol=1e-6)
    with pytest.raises(ValueError, match='41 neighbours among 40'):
        neighbours.nearest(x, y, 41)


def test_the_infinite_sample_estimate_takes_the_bias_away():
    """FID of a Gaussian against its own moments is 0 at infinity, and above it by the count's bias at any count."""
    width, metric = 8, fid.Metric('clean')
    truth = Moments(10**6, np.zeros(width), np.eye(width) * (10**6 - 1))
    sets = RNG.standard_normal((40, 400, width))  # one set has noise of its own: the claim is of their mean
    biased = np.array([metric.result(Moments().add(rows), truth)['fid'] for rows in sets])
    estimates = np.array([fid.infinity(rows, truth) for rows in sets])
    error = estimates.std() / np.sqrt(len(sets))
    assert biased.mean() > 10 * error
    assert abs(estimates.mean()) < 3 * error
    with pytest.raises(ValueError, match='at least 100'):
        fid.infinity(sets[0][:50], truth)
