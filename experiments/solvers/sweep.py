"""Error to the exact solution and distance to real images against 4 to 40 evaluations: 15 solvers on 4 grids.

    python tools/sweep.py experiments/solvers/sweep.py --out runs/solvers

README.md has what came out, and what it took. The pack of emoji is what configs/emoji_ldm.py trains on.
"""

SOLVERS = (
    'euler',
    'heun',
    'heunpp2',
    'dpm2',
    'lms',
    'plms',
    'ipndm',
    'ipndm_v',
    'deis',
    'dpmpp_2m',
    dict(name='dpm_solver_multistep', max_order=3),
    dict(name='dpm_solver_singlestep', max_order=3),
    dict(name='unipc', max_order=2),
    dict(name='unipc', max_order=3),
    'res_multistep',
)
GRIDS = ('karras', 'exponential', 'trailing', 'sgm_uniform')
THINGS = (
    'red apple', 'lemon', 'carrot', 'hamburger', 'pizza', 'penguin', 'fox', 'cat face',
    'cactus', 'tropical fish', 'watermelon', 'mushroom', 'frog', 'rabbit face', 'doughnut', 'strawberry',
)  # fmt: skip
STYLES = (
    'noto',
    'twemoji',
    'fluent-emoji',
    'emojione',
    'noto-v1',
    'fluent-emoji-flat',
    'fluent-emoji-3d',
)
PROMPTS = tuple(f'{thing}, {STYLES[i % len(STYLES)]} style' for i, thing in enumerate(THINGS))


def get_config(arg: str = '') -> dict:
    return dict(
        title='solvers',
        cells=dict(
            name='sampling',
            prompts=PROMPTS,
            num_images=16,
            metrics=dict(error=dict(), fd=dict()),
            exact=dict(sampler='heun', grid='karras', num_steps=250),
            reference=dict(
                data=dict(
                    name='image_folder',
                    path='data/emoji64.zip',
                    image_size=32,
                    text='{caption}, {style} style',
                    select=dict(split=('train',), group=('food-drink', 'animals-nature')),
                ),
            ),
        ),
        settings=dict(model='emoji32', guidance_scale=None),
        vary=dict(sampler=SOLVERS, grid=GRIDS, evaluations=(4, 5, 7, 10, 20, 40), seed=(0, 1, 2)),
    )
