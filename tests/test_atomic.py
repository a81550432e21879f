"""Files and folders that appear whole or not at all."""

import errno
import os
import resource
import threading

import pytest

from ldm_jax import atomic


def test_a_file_appears_when_the_block_ends(tmp_path):
    with atomic.atomic_write(tmp_path / 'a.txt') as partial:
        partial.write_text('new')
        assert not (tmp_path / 'a.txt').exists()
        assert partial.name.endswith(atomic.PARTIAL)
    assert (tmp_path / 'a.txt').read_text() == 'new'
    assert os.listdir(tmp_path) == ['a.txt']


@pytest.mark.parametrize('older', [True, False])
def test_an_error_leaves_what_was_there(tmp_path, older):
    if older:
        atomic.write(tmp_path / 'a.txt', 'old')

    def stopped():
        with atomic.atomic_write(tmp_path / 'a.txt', sync=True) as partial:
            partial.write_text('half')
            raise KeyError

    with pytest.raises(KeyError):
        stopped()
    assert os.listdir(tmp_path) == ['a.txt'] * older
    assert not older or (tmp_path / 'a.txt').read_text() == 'old'


def test_what_a_killed_writer_left_is_overwritten_by_one_that_is_alone(tmp_path):
    (tmp_path / f'a{atomic.PARTIAL}').write_text('left by a kill')
    atomic.write(tmp_path / 'a', 'new', alone=True)
    assert os.listdir(tmp_path) == ['a']


def test_text_and_bytes(tmp_path):
    atomic.write(tmp_path / 'a', 'é\n')
    atomic.write(tmp_path / 'b', b'\xff')
    assert (tmp_path / 'a').read_bytes() == 'é\n'.encode()
    assert (tmp_path / 'b').read_bytes() == b'\xff'


def test_many_writers_of_one_file_leave_one_of_their_contents(tmp_path):
    texts = [str(i) * 10_000 for i in range(8)]
    threads = [threading.Thread(target=atomic.write, args=(tmp_path / 'a', text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / 'a').read_text() in texts
    assert os.listdir(tmp_path) == ['a']


def test_a_folder_replaces_an_older_one_or_leaves_it(tmp_path):
    for content in ('one', 'two'):
        with atomic.atomic_folder(tmp_path / 'f') as partial:
            (partial / content).write_text(content)
    assert os.listdir(tmp_path / 'f') == ['two']
    with pytest.raises(KeyError), atomic.atomic_folder(tmp_path / 'f'):
        raise KeyError
    assert os.listdir(tmp_path / 'f') == ['two']
    assert os.listdir(tmp_path) == ['f']


def test_a_full_disk_is_named(tmp_path):
    for make in (atomic.atomic_write, atomic.atomic_folder):
        with pytest.raises(OSError, match='No space left.*out') as caught, make(tmp_path / 'out'):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        assert caught.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path) == []


def test_a_real_write_that_fails_is_named(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match=r'out'):
            atomic.write(tmp_path / 'out', b'x' * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert os.listdir(tmp_path) == []
