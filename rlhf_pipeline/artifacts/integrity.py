"""Check one object against its manifest: every file and no other, sizes and hashes as recorded, id as content."""

from __future__ import annotations

from pathlib import Path

from rlhf_pipeline.artifacts.describe import file_entries, file_names
from rlhf_pipeline.artifacts.manifest import Manifest, read_manifest
from rlhf_pipeline.errors import ArtifactError


def object_problems(folder: Path, *, hashes: bool = True) -> list[str]:
    """Return what is wrong with the object in `folder`, a line each; `hashes` off: only names and sizes."""
    try:
        manifest = read_manifest(folder)
    except ArtifactError as error:
        return [str(error)]
    if not manifest.id == folder.name == manifest.content_id():
        return [f"{folder}: its content makes it {manifest.content_id()}, its manifest says {manifest.id}"]
    return _file_problems(folder, manifest, hashes)


def _file_problems(folder: Path, manifest: Manifest, hashes: bool) -> list[str]:
    found = file_names(folder)
    problems = [f"{folder / name} is missing" for name in sorted(manifest.files.keys() - found)]
    problems += [f"{folder / name} does not belong to the object" for name in sorted(found - manifest.files.keys())]
    whole = []
    for name in sorted(manifest.files.keys() & found):
        size = (folder / name).stat().st_size
        if size != manifest.files[name].size:
            problems.append(f"{folder / name} has {size} bytes, its manifest says {manifest.files[name].size}")
        else:
            whole.append(name)
    if hashes:
        entries = file_entries(folder, whole)
        changed = [name for name in whole if entries[name] != manifest.files[name]]
        problems += [f"{folder / name} is damaged: its SHA-256 is not the one in the manifest" for name in changed]
    return problems
