"""Packages are fetched by npm, checked and read."""

import dataclasses
import os
import shutil

import pytest

from tests.data.builders import packages


@pytest.fixture
def package(tmp_path):
    (tmp_path / 'registry').mkdir()
    return packages.write(tmp_path / 'registry', '@scope/name', '1.2.3', {'data.json': {'a': 1}})


def npm(folder, monkeypatch, script):
    """An npm of our own, the only one to be found."""
    (folder / 'bin').mkdir()
    path = folder / 'bin' / 'npm'
    path.write_text(f'#!/bin/sh\n{script}\n')
    path.chmod(0o755)
    monkeypatch.setenv('PATH', f'{folder / "bin"}:/usr/bin:/bin')


def test_an_archive_that_is_there_is_read_without_npm(package, tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    assert package.file == 'scope-name-1.2.3.tgz'
    archive = package.fetch(tmp_path / 'registry')
    assert archive.read('data.json') == b'{"a": 1}'
    with pytest.raises(FileNotFoundError, match='holds no other.json'):
        archive.read('other.json')


def test_npm_fetches_what_is_missing(package, tmp_path, monkeypatch):
    npm(tmp_path, monkeypatch, f'echo "$@" > asked; cp {tmp_path}/registry/*.tgz .')
    assert package.fetch(tmp_path / 'new').files == {'data.json': b'{"a": 1}'}
    assert (tmp_path / 'new' / 'asked').read_text() == 'pack --silent @scope/name@1.2.3\n'


def test_mistakes_are_named(package, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r'scope-name-1\.2\.3\.tgz has sha512 .* delete it'):
        dataclasses.replace(package, sha512='0' * 128).fetch(tmp_path / 'registry')
    npm(tmp_path, monkeypatch, 'echo "no such version" >&2; exit 1')
    with pytest.raises(FileNotFoundError, match='npm pack --silent @scope/name@1.2.3: no such version'):
        package.fetch(tmp_path / 'other')
    shutil.rmtree(tmp_path / 'bin')
    os.environ['PATH'] = str(tmp_path)
    with pytest.raises(FileNotFoundError, match='there is no npm'):
        package.fetch(tmp_path / 'other')
