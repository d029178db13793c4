"""Images in the layout of the OCI, as a registry serves them, without a program that makes them."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
SIF_CONFIG = "application/vnd.sylabs.sif.config.v1+json"
SIF_LAYER = "application/vnd.sylabs.sif.layer.v1.sif"


def image_layout(tree: Path, folder: Path) -> Path:
    """A layout in the new folder ``folder`` with one image of one layer: the files of ``tree``."""
    packed = folder / "layer.tar"
    folder.mkdir()
    subprocess.run(["tar", "--create", f"--directory={tree}", f"--file={packed}", "."], check=True)
    layer = _blob(folder, "application/vnd.oci.image.layer.v1.tar", packed.read_bytes())
    packed.unlink()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin"], "Cmd": ["/bin/sh"]},
        "history": [{"created_by": "tests"}],  # ch-image wants one
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    }
    return _index(folder, _blob(folder, "application/vnd.oci.image.config.v1+json", json.dumps(config).encode()), layer)


def sif_layout(sif: Path, folder: Path) -> Path:
    """A layout with one SIF file, as ``apptainer push … oras://…`` leaves it."""
    folder.mkdir()
    layer = _blob(folder, SIF_LAYER, sif.read_bytes())
    layer["annotations"] = {"org.opencontainers.image.title": sif.name}
    return _index(folder, _blob(folder, SIF_CONFIG, b"{}"), layer)


def _index(folder: Path, config: Mapping[str, Any], layer: Mapping[str, Any]) -> Path:
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]}
    listed = _blob(folder, MANIFEST, json.dumps(manifest).encode())
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [listed]}))
    return folder


def _blob(folder: Path, media_type: str, content: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    (blobs / digest).write_bytes(content)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}
