"""Encoding in shards: killed, resumed, shared, and read back by the loader."""

import dataclasses
import itertools
import json

import ml_dtypes
import numpy as np
import pytest

from ldm_jax.data import encoding, latents, pipeline
from ldm_jax.data.corrupt import Corrupt, TooManyCorrupt


@dataclasses.dataclass(frozen=True)
class Images:
    """Images of one value in two shapes; a view adds something random."""

    broken: tuple[int, ...] = (4,)

    def __len__(self):
        return 23

    def __getitem__(self, i):
        if i in self.broken:
            raise Corrupt(self.name(i), 'broken')
        shape = (2, 4, 3) if i % 3 == 0 else (4, 2, 3)
        return {
            'image': np.full(shape, i, np.uint8),
            'text': f'text {i}',
            'label': np.int32(i),
            'size': np.arange(6),
        }

    def view(self, i, rng):
        return self[i] | {'draw': rng.random()}

    def name(self, i):
        return f'file {i}'

    @property
    def buckets(self):
        return [np.arange(0, 23, 3), np.array([i for i in range(23) if i % 3])]


def double(batch):
    """Stands in for a model; the batch's shape must not change, or it would be compiled anew."""
    assert len(batch['image']) == 4
    return {
        'moments': (batch['image'][..., :2] * 2).astype(np.float16),
        'pooled': batch['draw'].astype(ml_dtypes.bfloat16),
    }


def run(out, job=None, function=double, **settings):
    job = job or encoding.Encoding(Images(), batch_size=4, shard_size=5)
    settings = dict(max_corrupt=1) | settings
    return encoding.encode(
        job, function, str(out), {'model': 'x'}, null=lambda: {'context': np.ones(3)}, **settings
    )


def test_the_captions_that_were_drawn_are_kept_in_the_rows(tmp_path):
    class Captioned(Images):
        def captions(self, i):
            return f'text {i}', f'number {i}'

        def view(self, i, rng):
            return super().view(i, rng) | {'text': self.captions(i)[rng.integers(2)]}

    job = encoding.Encoding(Captioned(), batch_size=4, shard_size=50, views=6)
    run(tmp_path / 'a', job)
    run(tmp_path / 'b', job)
    source = latents.Source(str(tmp_path / 'a'))
    texts = [source[i]['text'] for i in range(len(source))]
    assert sum(text.startswith('number') for text in texts) in range(40, 92)  # of 132
    assert texts == [latents.Source(str(tmp_path / 'b'))[i]['text'] for i in range(len(source))]
    assert all(text.split()[1] == source.name(i).split()[1] for i, text in enumerate(texts))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_examples_come_back_with_their_names_in_buckets(tmp_path):
    report = run(tmp_path)
    assert report.names == {'file 4': 'broken'}
    assert report.read == 22
    source = latents.Source(str(tmp_path))
    assert len(source) == 22
    seen = set()
    for i in range(22):
        n = int(source.name(i).removeprefix('file '))
        seen.add(n)
        example = source[i]
        assert example.keys() == {'moments', 'pooled', 'text', 'label', 'size'}
        assert example['moments'].dtype == np.float32
        assert example['moments'].shape == ((2, 4, 2) if n % 3 == 0 else (4, 2, 2))
        assert (example['moments'] == 2 * n).all()
        assert (example['text'], example['label']) == (f'text {n}', n)
        assert source.caption(i) == f'text {n}'
        expected = Images().view(n, encoding.Order((), 1, 0).rng(0, n))['draw']
        assert example['pooled'] == ml_dtypes.bfloat16(expected)
    assert seen == set(range(23)) - {4}
    assert sorted(map(len, source.buckets)) == [8, 14]
    for members in source.buckets:
        assert len({source[int(i)]['moments'].shape for i in members}) == 1
    assert source.null['context'].tolist() == [1, 1, 1]
    assert source.manifest['model'] == 'x'
    for batch in itertools.islice(pipeline.batches(source, batch_size=4, seed=0), 12):
        assert (batch['moments'][:, 0, 0, 0] == 2 * batch['label']).all()
    assert latents.Source(str(tmp_path), only=('moments',))[0].keys() == {'moments'}


@pytest.mark.parametrize('stop', range(7))
def test_a_stopped_run_goes_on_and_gives_the_same_files(tmp_path, stop):
    run(tmp_path / 'whole')
    calls = []

    def stopping(batch):
        if len(calls) == stop:
            raise KeyboardInterrupt  # as a kill does, but for the partial file
        calls.append(1)
        return double(batch)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / 'stopped', function=stopping)
    with pytest.raises(FileNotFoundError, match=r'has \d of 5 shards.*\d-of-00005.*again'):
        latents.Source(str(tmp_path / 'stopped'))
    (tmp_path / 'stopped' / '00004-of-00005.array_record.ldm_jax-partial').write_bytes(b'left by a kill')
    before = contents(tmp_path / 'stopped')
    run(tmp_path / 'stopped')
    after = contents(tmp_path / 'stopped')
    assert after == contents(tmp_path / 'whole')
    assert all(after[name] == data for name, data in before.items() if name.endswith('.array_record'))


def test_processes_share_the_shards(tmp_path):
    run(tmp_path / 'whole')
    for index in (1, 0, 2):
        run(tmp_path / 'shared', process_index=index, process_count=3)
    assert contents(tmp_path / 'shared') == contents(tmp_path / 'whole')


def test_views_are_showings_of_their_own(tmp_path):
    run(tmp_path, encoding.Encoding(Images(), batch_size=4, shard_size=100, views=3))
    source = latents.Source(str(tmp_path))
    draws = {(source.name(i), float(source[i]['pooled'])) for i in range(len(source))}
    assert len(source) == 66
    assert len(draws) > 60  # in bfloat16 some are equal
    again = tmp_path / 'again'
    run(again, encoding.Encoding(Images(), batch_size=4, shard_size=100, views=3))
    assert (
        contents(again)['00000-of-00001.array_record']
        == (tmp_path / '00000-of-00001.array_record').read_bytes()
    )


def test_other_settings_are_refused(tmp_path):
    run(tmp_path)
    with pytest.raises(ValueError, match=r"'shard_size': \(5, 6\)"):
        run(tmp_path, encoding.Encoding(Images(), batch_size=4, shard_size=6))
    with pytest.raises(ValueError, match='batch_size.*0'):
        encoding.Encoding(Images(), batch_size=0)
    with pytest.raises(ValueError, match='process_index.*2'):
        run(tmp_path, process_index=2, process_count=2)


def test_too_many_corrupt_ones_stop_it_and_a_shard_may_have_none(tmp_path):
    broken = encoding.Encoding(Images(broken=tuple(range(13))), batch_size=4, shard_size=4)
    with pytest.raises(TooManyCorrupt, match='allowed'):
        run(tmp_path / 'a', broken, max_corrupt=0.1)
    run(tmp_path / 'b', broken)
    source = latents.Source(str(tmp_path / 'b'))
    assert sorted(int(source[i]['label']) for i in range(len(source))) == list(range(13, 23))
    notes = [json.loads(path.read_text())['corrupt'] for path in (tmp_path / 'b').glob('0*.json')]
    assert {name for note in notes for name in note} == {f'file {i}' for i in range(13)}


def test_mistakes_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'no manifest\.json.*encode_dataset'):
        latents.Source(str(tmp_path))
    run(tmp_path / 'x')
    with pytest.raises(ValueError, match=r"no \['image'\]; have .*'moments'"):
        latents.Source(str(tmp_path / 'x'), only=('image',))
