"""From a PyTorch pickle's object to a mapping: which of its dicts is the model, and where its tensors lie."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ldm_jax.checkpoints.files.pickles.allowed import Inert, Storage, Tensor
from ldm_jax.checkpoints.files.tensor_file import MappedFile, Place, TensorFile, quoted

# The outermost dict's entries that may hold the model, most telling first; '' is the dict itself. Training tools
# write 'model' and 'module', super-resolution networks 'params_ema', textual inversions 'string_to_param'.
WRAPPERS = ('state_dict', '', 'model', 'module', 'params_ema', 'string_to_param')
# Scalars beyond these bounds are not kept; the known ones are a handful at the top.
MAX_DEPTH, MAX_SCALARS, MAX_KEY = 4, 4096, 128
MAX_PATH = 1000  # letters of a module's path in a TorchScript


def tensor_file(
    file: MappedFile, root: Any, refused: Iterable[str], locate: Callable[[Storage], int]
) -> TensorFile:
    """The mapping.

    Args:
        root: the unpickled object.
        refused: the names that the pickle did not get.
        locate: the offset in the file of a storage's first byte; raises BadFile when it is not there.

    Raises BadFile when there are no tensors by name, or some by something else.
    """
    refused = tuple(refused)
    for wrapper in WRAPPERS:
        state = _entry(root, wrapper)
        if isinstance(state, dict) and any(isinstance(value, Tensor) for value in state.values()):
            break
    else:
        wanted = f' It wanted {_listed(refused)}, which are not imported.' if refused else ''
        raise file.error(
            f'it holds no tensors by name, but {_description(root)}.{wanted} '
            'Save the state dict alone, with torch.save(model.state_dict(), path).'
        )
    places = {}
    for key, value in state.items():
        if not isinstance(value, Tensor):
            continue
        if not isinstance(key, str):
            raise file.error(f'a tensor has a {type(key).__name__} as its key; expected text.')
        places[key] = _place(file, value, locate)
    return TensorFile([file], places, kind='torch', scalars=_scalars(root), refused=refused, wrapper=wrapper)


def of_modules(file: MappedFile, root: Any) -> dict[str, Tensor]:
    """The tensors of a TorchScript's modules by their attributes' path, as torch's state_dict() names them.

    Raises BadFile when the root is no module.
    """
    if not isinstance(root, Inert) or not isinstance(root.state, dict):
        raise file.error(f'it is a TorchScript archive that holds no module, but {_description(root)}.')
    found = {}
    queue = [('', root)]
    seen = {id(root)}  # a pickle can put a module in itself
    for prefix, module in queue:
        for key, value in module.state.items():
            if not isinstance(key, str) or len(prefix) > MAX_PATH:
                continue
            if isinstance(value, Tensor):
                found[prefix + key] = value
            elif isinstance(value, Inert) and isinstance(value.state, dict) and id(value) not in seen:
                seen.add(id(value))
                queue.append((f'{prefix}{key}.', value))
    return found


def _entry(root: Any, wrapper: str) -> Any:
    if not wrapper:
        return root
    entry = root.get(wrapper) if isinstance(root, dict) else None
    if isinstance(entry, Inert) and isinstance(entry.state, dict):  # a torch.nn.ParameterDict
        return entry.state.get('_parameters')
    return entry


def _place(file: MappedFile, tensor: Tensor, locate: Callable[[Storage], int]) -> Place:
    spec, storage = tensor.spec, tensor.storage
    offset = (
        locate(storage) + storage.start * storage.dtype.itemsize + tensor.offset * spec.dtype.itemsize
        if spec.nbytes
        else 0
    )
    # The stride of an axis of size 1 is never used, and may be anything.
    steps = zip(spec.shape, tensor.strides, strict=True)
    strides = tuple(stride * spec.dtype.itemsize if size > 1 else 0 for size, stride in steps)
    contiguous, expected = spec.dtype.itemsize, []
    for size in reversed(spec.shape):
        expected.append(contiguous if size > 1 else 0)
        contiguous *= size
    return Place(file, offset, spec, None if strides == tuple(reversed(expected)) else strides)


def _scalars(root: Any) -> dict[str, int | float | str | bool]:
    """Numbers and text in nested dicts, by dotted key."""
    found: dict[str, int | float | str | bool] = {}
    queue = [('', root, 1)]
    seen = {id(root)}  # a pickle can put a dict in itself
    for prefix, node, depth in queue:
        for key, value in node.items() if isinstance(node, dict) else ():
            if not isinstance(key, str) or len(key) > MAX_KEY:
                continue
            if isinstance(value, bool | int | float | str) and len(found) < MAX_SCALARS:
                found[prefix + key] = value
            elif isinstance(value, dict) and depth < MAX_DEPTH and id(value) not in seen:
                seen.add(id(value))
                queue.append((f'{prefix}{key}.', value, depth + 1))
    return found


def _description(root: Any) -> str:
    if isinstance(root, Inert):
        return f'a whole object of class {root.name}'
    if isinstance(root, dict):
        return f'a dict with {_listed([key for key in root if isinstance(key, str)])}'
    return f'a {type(root).__name__}'


def _listed(names: Iterable[str], most: int = 8) -> str:
    names = list(names)
    more = f' and {len(names) - most} more' if len(names) > most else ''
    return (', '.join(quoted(name) for name in names[:most]) + more) or 'nothing'
