"""Archives as `npm pack` makes them."""

import hashlib
import io
import json
import tarfile

from ldm_jax.data.builders.npm import Package


def write(folder, name, version, files):
    """Writes an archive of files (bytes, or JSON data) and returns the package that it is."""
    package = Package(name, version, '')
    path = folder / package.file
    with tarfile.open(path, 'w:gz') as archive:
        for file, data in files.items():
            data = data if isinstance(data, bytes) else json.dumps(data).encode()
            info = tarfile.TarInfo(f'package/{file}')
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return Package(name, version, hashlib.sha512(path.read_bytes()).hexdigest())
