"""Files beneath a folder: hidden is what starts with a dot, links are followed, files that are left out are named."""

import pytest

from ldm_jax.data import folders


@pytest.fixture
def root(tmp_path):
    root = tmp_path / 'root'
    for name in ('b/x.png', 'a.png', '__init__/y.png', '_z.png', '.hidden.png', '.git/config', 'b/.DS_Store'):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b'x')
    return root


def test_only_names_that_start_with_a_dot_are_hidden(root):
    found = folders.walk(root)
    assert found.names == ['__init__/y.png', '_z.png', 'a.png', 'b/x.png']
    assert found.left_out == {'hidden': ['.git', '.hidden.png', 'b/.DS_Store']}
    assert folders.counted(found.left_out) == 'hidden: 3 (.git, .hidden.png, b/.DS_Store)'


def test_links_to_folders_and_files_are_followed(root, tmp_path):
    (tmp_path / 'other' / 'deep').mkdir(parents=True)
    (tmp_path / 'other' / 'deep' / 'far.png').write_bytes(b'x')
    (root / 'linked').symlink_to(tmp_path / 'other', target_is_directory=True)
    (root / 'file.png').symlink_to(root / 'a.png')
    assert {'linked/deep/far.png', 'file.png'} <= set(folders.walk(root).names)
    (tmp_path / 'whole').symlink_to(root, target_is_directory=True)
    assert folders.walk(tmp_path / 'whole').names == folders.walk(root).names


def test_links_in_a_circle_and_to_nothing_are_named(root):
    (root / 'b' / 'up').symlink_to(root, target_is_directory=True)
    (root / 'self').symlink_to(root / 'self')
    (root / 'gone.png').symlink_to(root / 'nowhere.png')
    found = folders.walk(root)
    assert found.names == ['__init__/y.png', '_z.png', 'a.png', 'b/x.png']
    assert found.left_out['links to a folder above'] == ['b/up']
    assert found.left_out['links to nothing'] == ['gone.png', 'self']


def test_paths_of_an_archive_are_told_apart_alike(root):
    names = ['b/x.png', 'a.png', '__MACOSX/._a.png', '.git/config', '__cat__.png', 'b/.DS_Store']
    found = folders.visible(names)
    assert found.names == ['__cat__.png', 'a.png', 'b/x.png']
    assert found.left_out == {'hidden': ['.git/config', '__MACOSX/._a.png', 'b/.DS_Store']}


def test_a_long_list_is_counted_and_cut():
    assert folders.counted({'hidden': list('abcde')}) == 'hidden: 5 (a, b, c, ...)'
    assert folders.counted({}) == ''
