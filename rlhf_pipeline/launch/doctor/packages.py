"""Whether the installed packages are those that were tested, by what the installed rlhf_pipeline asks for.

Left out: packages that it does not name; pip has seen to those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata

from packaging.requirements import Requirement

from rlhf_pipeline.launch.doctor.findings import Finding, failed, passed, warned

CHECK = "packages"
DISTRIBUTION = "rlhf_pipeline"
OPTIONAL = ("deepspeed", "quantization", "vllm")

TESTED = {
    "torch": "2.13.0",
    "transformers": "5.23.0",
    "trl": "1.16.0",
    "accelerate": "1.15.0",
    "deepspeed": "0.19.8",
    "datasets": "5.2.0",
    "peft": "0.21.2",
    "tokenizers": "0.23.3",
    "safetensors": "0.8.0",
}
"""What the tests ran with, as in constraints.txt, which is not installed along."""


def check_packages() -> list[Finding]:
    """Compare what is installed with the ranges of the installed rlhf_pipeline."""
    try:
        requirements = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return [
            warned(CHECK, f"{DISTRIBUTION} is run from a folder, not installed", "type `pip install .` in that folder")
        ]
    return compare(requirements, versions())


def versions() -> dict[str, str]:
    """Return the version of every installed package, by its name in small letters with dashes."""
    found = ((item.metadata["Name"], item.version) for item in metadata.distributions())
    return {canonical(name): version for name, version in found if name}


def canonical(name: str) -> str:
    """Write a package's name the one way in which names are compared."""
    return name.lower().replace("_", "-").replace(".", "-")


def compare(requirements: Sequence[str], installed: Mapping[str, str]) -> list[Finding]:
    """Return one finding for each package that is missing or outside its range, and one for all others."""
    findings, fitting = [], []
    for requirement in _asked(requirements, installed):
        version = installed.get(canonical(requirement.name))
        wanted = f"{requirement.name}{requirement.specifier}"
        if version is None:
            findings.append(failed(CHECK, f"{requirement.name} is not installed", f"type `pip install '{wanted}'`"))
        elif not requirement.specifier.contains(version, prereleases=True):
            fix = f"type `pip install '{wanted}'`, or make an environment with `make install`"
            findings.append(failed(CHECK, f"{requirement.name} {version} is outside {requirement.specifier}", fix))
        else:
            fitting.append(requirement.name)
    return [*findings, _others(fitting, installed)]


def _asked(requirements: Sequence[str], installed: Mapping[str, str]) -> list[Requirement]:
    """Parse what is asked for here: all that is needed anyway, and what is optional where it is installed."""
    asked = []
    for requirement in map(Requirement, requirements):
        needed = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        wanted = requirement.marker is not None and any(requirement.marker.evaluate({"extra": e}) for e in OPTIONAL)
        if needed or (wanted and canonical(requirement.name) in installed):
            asked.append(requirement)
    return asked


def _others(fitting: Sequence[str], installed: Mapping[str, str]) -> Finding:
    here = {name: installed[name] for name in TESTED if name in installed}
    moved = [f"{name} {version} (tested: {TESTED[name]})" for name, version in here.items() if not _same(name, version)]
    rest = "as tested" if not moved else f"others than tested: {', '.join(moved)}"
    return passed(CHECK, f"{len(fitting)} in their ranges, {rest}")


def _same(name: str, version: str) -> bool:
    return version.partition("+")[0] == TESTED[name]  # torch says +cpu, +cu130 behind its version
