"""A configuration file that is not written yet, read as if it were."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from hpc_agent.config.load import Configuration, load
from hpc_agent.errors import ConfigError


def load_text(
    text: str, path: Path, environ: Mapping[str, str], flags: Mapping[str, object] | None = None
) -> Configuration:
    """The configuration with ``text`` in the file ``path``, whose folder exists.

    Raises:
        ConfigError: as ``config.load.load``.
    """
    # In the same folder: includes are relative to it. Readable by its owner alone: it may hold keys.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
        configuration = load(Path(name), environ, flags)
    except ConfigError as error:
        raise ConfigError(str(error).replace(name, str(path))) from None
    finally:
        Path(name).unlink()
    origins = {key: str(path) if place == name else place for key, place in configuration.origins.items()}
    return Configuration(configuration.settings, configuration.tree, origins, configuration.files, configuration.notes)
