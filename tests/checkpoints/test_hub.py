"""Repositories on a hub of our own making: requests to it, and conversions without it."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ldm_jax.checkpoints import hub

ROOT = Path(__file__).parents[2]
COMMIT = '0123456789abcdef0123456789abcdef01234567'
FOLDER = {
    'model_index.json': b'{"_class_name": "StableDiffusionPipeline"}',
    'unet/config.json': b'{}',
    'unet/diffusion_pytorch_model.safetensors': b'full',
    'unet/diffusion_pytorch_model.bin': b'pickle',
    'unet/diffusion_pytorch_model.fp16.safetensors': b'half',
    'vae/config.json': b'{}',
    'vae/diffusion_pytorch_model.bin': b'only a pickle',
    'safety_checker/model.safetensors': b'unused',
    'unet/diffusion_flax_model.msgpack': b'unused',
    'v1-5-pruned.ckpt': b'unused',
    'README.md': b'unused',
}
SINGLES = {'v1-5-pruned.ckpt': b'a', 'v1-5-pruned-emaonly.safetensors': b'b', 'README.md': b'c'}
REPOS = {'someone/folder': FOLDER, 'someone/singles': SINGLES, 'someone/one': {'model.safetensors': b'd'}}
REPOS['someone/pair'] = {'taesd_decoder.safetensors': b'd', 'taesd_encoder.safetensors': b'e', 'x.ckpt': b'f'}


def test_what_may_be_the_id_of_a_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('a/b', 'stabilityai/sdxl-vae@main', 'a/b/v1-5.safetensors', 'a/b/v1.ckpt@0.9'):
        assert hub.is_id(name)
    for name in ('a', '/a/b', './a/b/c', 'a/b/c', 'runs/tiny/model', ''):
        assert not hub.is_id(name)
    (tmp_path / 'a' / 'b').mkdir(parents=True)
    assert not hub.is_id('a/b')  # a folder here


def test_a_folder_s_settings_and_one_file_of_weights_a_part_are_needed():
    names = list(FOLDER)
    plain = set(hub.needed(names, None, None, 'x'))
    assert plain == {
        'model_index.json',
        'unet/config.json',
        'unet/diffusion_pytorch_model.safetensors',
        'vae/config.json',
        'vae/diffusion_pytorch_model.bin',
    }
    half = set(hub.needed(names, None, 'fp16', 'x'))
    assert 'unet/diffusion_pytorch_model.fp16.safetensors' in half
    assert 'unet/diffusion_pytorch_model.safetensors' not in half
    assert 'vae/diffusion_pytorch_model.bin' in half


def test_shards_come_with_their_index():
    names = [
        'config.json',
        'diffusion_pytorch_model-00001-of-00002.safetensors',
        'diffusion_pytorch_model-00002-of-00002.safetensors',
        'diffusion_pytorch_model.safetensors.index.json',
    ]
    assert set(hub.needed(names, None, None, 'x')) == set(names)


def test_of_several_single_files_one_has_to_be_named():
    with pytest.raises(ValueError, match=r'several.*a/b/v1-5-pruned\.ckpt.*emaonly'):
        hub.needed(list(SINGLES), None, None, 'a/b')
    assert hub.needed(list(SINGLES), 'v1-5-pruned.ckpt', None, 'a/b') == ['v1-5-pruned.ckpt']
    with pytest.raises(FileNotFoundError, match=r"no file 'v2\.ckpt'.*emaonly"):
        hub.needed(list(SINGLES), 'v2.ckpt', None, 'a/b')
    with pytest.raises(ValueError, match='no checkpoint'):
        hub.needed(['README.md'], None, None, 'a/b')


def test_half_of_an_autoencoder_comes_with_the_other():
    names = ['v1/taesd_decoder.safetensors', 'taesd_decoder.safetensors', 'v1/taesd_encoder.safetensors']
    assert hub.needed(names, names[0], None, 'x') == [names[0], names[2]]
    assert hub.needed(names, names[2], None, 'x') == [names[2], names[0]]
    assert hub.needed(names, names[1], None, 'x') == [names[1]]  # the error comes when it is opened


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub's interface as its client uses."""

    asked: list[str] = []  # noqa: RUF012 (one server, one list)

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.do_GET(body=False)

    def do_GET(self, body=True):
        path = self.path.split('?')[0]
        self.asked.append(path)
        for repo, files in REPOS.items():
            if path.startswith(f'/api/models/{repo}'):
                rest = path.removeprefix(f'/api/models/{repo}')
                if rest in (f'/tree/{COMMIT}', '/tree/main'):
                    tree = [
                        {
                            'type': 'file',
                            'path': name,
                            'size': len(data),
                            'oid': hashlib.sha1(data).hexdigest(),
                        }
                        for name, data in files.items()
                    ]
                    return self.answer(
                        200, json.dumps(tree).encode(), {'Content-Type': 'application/json'}, body
                    )
                if rest not in ('', '/revision/main', f'/revision/{COMMIT}'):
                    return self.answer(404, b'{}', {'X-Error-Code': 'RevisionNotFound'}, body)
                siblings = [{'rfilename': name} for name in files]
                info = {'id': repo, 'sha': COMMIT, 'siblings': siblings, 'tags': [], 'private': False}
                return self.answer(200, json.dumps(info).encode(), {'Content-Type': 'application/json'}, body)
            prefix = f'/{repo}/resolve/{COMMIT}/'
            if path.startswith(prefix):
                content = files[path.removeprefix(prefix)]
                headers = {'X-Repo-Commit': COMMIT, 'ETag': f'"{hashlib.sha256(content).hexdigest()}"'}
                return self.answer(200, content, headers, body)
        return self.answer(404, b'{}', {'X-Error-Code': 'RepoNotFound'}, body)

    def answer(self, status, content, headers, body):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header('Content-Length', str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)


@pytest.fixture(scope='module')
def server():
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Hub) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{running.server_address[1]}'
        running.shutdown()


def download(home, endpoint, name, *args, offline=False):
    """hub.download in a process of its own, as its client reads its settings when it is imported."""
    code = (
        'import json, sys\nfrom ldm_jax.checkpoints import hub\n'
        'try: print(json.dumps(hub.download(*json.loads(sys.argv[1]))))\n'
        'except Exception as error: print(json.dumps([type(error).__name__, str(error)]))'
    )
    env = os.environ | {
        'HF_HOME': str(home),
        'HF_ENDPOINT': endpoint,
        'HF_HUB_OFFLINE': str(int(offline)),
        'HF_HUB_DISABLE_XET': '1',
        'HF_HUB_DISABLE_TELEMETRY': '1',
        'PYTHONPATH': str(ROOT),
        'NO_PROXY': '127.0.0.1',
    }
    run = subprocess.run(
        [sys.executable, '-c', code, json.dumps([name, *args])], capture_output=True, text=True, env=env
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    return tmp_path_factory.mktemp('hub')


@pytest.mark.slow
def test_a_folder_is_brought_into_the_cache_and_found_there_offline(server, home):
    path, origin = download(home, server, 'someone/folder')
    assert origin == {'repository': 'someone/folder', 'commit': COMMIT}
    root = Path(path)
    assert root.is_relative_to(home)
    brought = {str(file.relative_to(root)) for file in root.rglob('*') if file.is_file()}
    assert brought == set(hub.needed(list(FOLDER), None, None, 'x'))
    assert (root / 'vae' / 'diffusion_pytorch_model.bin').read_bytes() == b'only a pickle'
    for endpoint, offline in (
        (server, True),
        ('http://127.0.0.1:9', False),
    ):  # by the setting, or not reached
        assert download(home, endpoint, 'someone/folder', offline=offline) == [path, origin]


@pytest.mark.slow
def test_a_single_file_is_brought_alone(server, home):
    path, _ = download(home, server, 'someone/singles/v1-5-pruned-emaonly.safetensors')
    assert Path(path).name == 'v1-5-pruned-emaonly.safetensors'
    assert [file.name for file in Path(path).parent.iterdir()] == ['v1-5-pruned-emaonly.safetensors']
    path, _ = download(home, server, 'someone/one', 'main')
    assert Path(path).read_bytes() == b'd'
    path, _ = download(home, server, 'someone/pair/taesd_encoder.safetensors')
    assert Path(path).read_bytes() == b'e'
    assert sorted(file.name[6:13] for file in Path(path).parent.iterdir()) == ['decoder', 'encoder']


@pytest.mark.parametrize(
    ('name', 'args', 'error', 'words'),
    [
        ('someone/nothing', (), 'FileNotFoundError', ['no someone/nothing', 'hf auth login']),
        ('someone/one', ('v9',), 'FileNotFoundError', ['someone/one at v9']),
        ('someone/singles', (), 'ValueError', ['several', 'someone/singles/v1-5-pruned.ckpt']),
    ],
)
def test_what_the_hub_does_not_have_is_said(server, home, name, args, error, words):
    kind, text = download(home, server, name, *args)
    assert kind == error
    assert all(word in text for word in words), text


def test_without_a_hub_the_error_says_what_to_do(tmp_path):
    kind, text = download(tmp_path, 'http://127.0.0.1:9', 'someone/folder', offline=True)
    assert kind == 'ConnectionError'
    assert 'hf download someone/folder' in text
