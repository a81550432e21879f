"""Repositories of the Hugging Face hub, brought here through its own cache."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Sequence

from ldm_jax.checkpoints.files import pair

# owner/name, then perhaps a file of the repository, then perhaps @revision
_ID = re.compile(
    r'(?P<repo>[\w.-]+/[\w.-]+?)(?:/(?P<file>[^@]+\.(?:safetensors|ckpt)))?(?:@(?P<revision>[\w./-]+))?'
)
_SETTINGS = re.compile(r'(?:[\w-]+/)?[\w.-]+\.(?:json|txt)')
_WEIGHTS = re.compile(
    r'(?P<folder>(?:[\w-]+/)?)(?:diffusion_pytorch_model|pytorch_model|model)'
    r'(?:\.(?P<variant>[a-z]\w*))?(?:-\d+-of-\d+)?(?:\.(?P<variant_2>[a-z]\w*))?\.(?P<kind>safetensors|bin)'
)
_UNUSED = ('safety_checker/', 'feature_extractor/')  # their weights are not read


def is_id(name: str) -> bool:
    """Whether a name may be a repository's: 'owner/name', 'owner/name/file.safetensors', each with '@revision'."""
    return not pathlib.Path(name).exists() and _ID.fullmatch(name) is not None


def locate(name: str, revision: str | None = None, variant: str | None = None) -> tuple[str, dict[str, str]]:
    """A path and its origin: as `download` where the name is a repository's, the name itself where it is not."""
    return download(name, revision, variant) if is_id(name) else (name, {})


def download(
    name: str, revision: str | None = None, variant: str | None = None
) -> tuple[str, dict[str, str]]:
    """Brings the files of a repository that are needed into the hub's cache.

    Args:
        name: as `is_id` takes it.
        revision: a branch, tag or commit; that in the name, or else the newest, by default.
        variant: of a diffusers folder's files, such as 'fp16'.

    Returns:
        the path of the folder or file, and what a report tells of it: repository and commit.

    Raises:
        FileNotFoundError: no such repository, revision or file, or it is private.
        ValueError: no checkpoint in it, or several single files; the message lists them.
        ConnectionError: the hub cannot be reached, and the cache lacks a file that is needed.
    """
    import huggingface_hub
    from huggingface_hub import errors

    found = _ID.fullmatch(name)
    repo, file, revision = found['repo'], found['file'], revision or found['revision']
    what = repo + (f' at {revision}' if revision else '')
    try:
        info = huggingface_hub.HfApi().model_info(repo, revision=revision)
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise FileNotFoundError(
            f'The hub has no {what} that this machine may read. Check the name; for a private or gated one, accept '
            'its terms on its page and log in with `hf auth login`.'
        ) from error
    except errors.HfHubHTTPError:  # the hub answered, with another error of its own
        raise
    except Exception as error:  # offline: the transport's own errors change with the client's versions
        return _cached(repo, file, revision, variant, what, error)
    files = needed([entry.rfilename for entry in info.siblings], file, variant, what)
    # By the revision's own name, under which the cache will be asked when there is no connection.
    root = huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=files)
    return _path(root, files), {'repository': repo, 'commit': pathlib.Path(root).name}


def needed(files: Sequence[str], file: str | None, variant: str | None, what: str) -> list[str]:
    """Those of a repository's files that a conversion reads.

    A diffusers folder (model_index.json, or the config.json of one model): its settings, and of each part's
    weights the variant asked for where there is one, safetensors rather than pickles. Else the one single file,
    with the other half of an autoencoder if it is one.

    Raises as `download`.
    """
    if file is not None:
        if file not in files:
            raise FileNotFoundError(
                f'{what} has no file {file!r}; it has {_single(files) or list(files)[:10]}.'
            )
        folder, slash, last = file.rpartition('/')
        other = pair.other_name(last)
        halves = [file] if other is None else [file, folder + slash + other]
        return [name for name in halves if name in files]
    if 'model_index.json' in files or 'config.json' in files:
        chosen = [name for name in files if _SETTINGS.fullmatch(name)]
        folders: dict[str, list[re.Match]] = {}
        for name in files:
            weights = _WEIGHTS.fullmatch(name)
            if weights and not name.startswith(_UNUSED):
                folders.setdefault(weights['folder'], []).append(weights)
        for entries in folders.values():
            for key, wanted in (('kind', 'safetensors'), ('variant', variant)):
                entries = [e for e in entries if _field(e, key) == wanted] or entries
            chosen += [entry.string for entry in entries]
        if folders:
            return chosen
    singles = _single(files)
    if len(singles) == 1:
        return singles
    if not singles:
        raise ValueError(f'{what} holds no checkpoint: neither a diffusers folder nor a single file.')
    raise ValueError(f'{what} holds several checkpoints; name one: {[f"{what}/{name}" for name in singles]}.')


def _field(weights: re.Match, key: str) -> str | None:
    return weights['variant'] or weights['variant_2'] if key == 'variant' else weights[key]


def _single(files: Sequence[str]) -> list[str]:
    return [name for name in files if name.endswith(('.safetensors', '.ckpt')) and '/' not in name]


def _path(root: str, files: Sequence[str]) -> str:
    is_folder = _SETTINGS.fullmatch(files[0])  # in the list of a folder, settings come first
    return str(root) if is_folder else str(pathlib.Path(root) / files[0])


def _cached(
    repo: str, file: str | None, revision: str | None, variant: str | None, what: str, error: Exception
) -> tuple[str, dict[str, str]]:
    import huggingface_hub
    from huggingface_hub import errors

    wanted = revision or 'main'
    try:
        # Not snapshot_download, which offline refuses a snapshot that lacks files that we never asked for.
        found = [
            entry.snapshot_path
            for cached in huggingface_hub.scan_cache_dir().repos
            if cached.repo_id == repo
            for entry in cached.revisions
            if wanted in entry.refs or wanted == entry.commit_hash
        ]
        if not found:
            raise FileNotFoundError(f'{what} is not in the cache')
        root = pathlib.Path(found[0])
        here = [str(path.relative_to(root)) for path in root.rglob('*') if path.is_file()]
        files = needed(here, file, variant, what)
    except (OSError, ValueError, errors.CacheNotFound):
        raise ConnectionError(
            f'The hub cannot be reached ({type(error).__name__}), and {what} is not in its cache here. Connect; or '
            f'fetch it where there is a connection (hf download {repo}), copy it here, and give its path.'
        ) from error
    return _path(str(root), files), {'repository': repo, 'commit': root.name}
