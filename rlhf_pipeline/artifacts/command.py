"""`rlhf artifacts`: list, show, lineage, verify, merge, ensemble, gc. Reads and tidies the store; stages fill it."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rlhf_pipeline.artifacts.storage import readable_size
from rlhf_pipeline.artifacts.store import Store
from rlhf_pipeline.errors import ArtifactError, ConfigError


def main(argv: Sequence[str]) -> int:
    """Run one subcommand and return its exit status; what the user can put right is an RlhfError."""
    arguments = _parser().parse_args(argv)
    store = Store(arguments.artifacts)
    status: int = arguments.command(store, arguments)
    return status


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, like all others."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{self.prog}: {message}; `{self.prog} --help` shows what it takes")


def _parser() -> argparse.ArgumentParser:
    common = _Parser(add_help=False)
    common.add_argument("--artifacts", default="artifacts", metavar="FOLDER", help="the store (default: artifacts)")
    common.add_argument("--run", default="default", help="the run whose roles are meant (default: default)")
    parser = _Parser(prog="rlhf artifacts", description="Look at the artifact store and tidy it.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    name = "an id or its beginning, a role (sft), or <run>/<role>"

    def add(command: Any, word: str, summary: str) -> argparse.ArgumentParser:
        added = commands.add_parser(word, help=summary, description=summary, parents=[common])
        added.set_defaults(command=command)
        return added

    listing = add(_list, "list", "list all objects, oldest first, and the refs that name them")
    listing.add_argument("--json", action="store_true", help="as JSON")
    show = add(_show, "show", "show the manifest of an object")
    show.add_argument("name", help=name)
    show.add_argument("--json", action="store_true", help="as JSON")
    lineage = add(_lineage, "lineage", "draw what an object was made from")
    lineage.add_argument("name", help=name)
    form = lineage.add_mutually_exclusive_group()
    form.add_argument("--dot", action="store_true", help="in the dot language of Graphviz")
    form.add_argument("--png", metavar="FILE", help="as a picture in FILE")
    verify = add(_verify, "verify", "hash every file, and check every parent and ref")
    verify.add_argument("names", nargs="*", help=f"{name}; without any, the whole store")
    merge = add(_merge, "merge", "merge a LoRA adapter into its base and publish the full model")
    merge.add_argument("name", help=name)
    merge.add_argument("--role", help="ref that will name the full model (default: <kind>-merged)")
    ensemble = add(_ensemble, "ensemble", "publish an ensemble of reward models; the first one starts PPO's critic")
    ensemble.add_argument("names", nargs="+", help=name)
    ensemble.add_argument("--role", default="reward", help="ref that will name the ensemble (default: reward)")
    gc = add(_gc, "gc", "show what no ref reaches and no running stage reads; --yes deletes it")
    gc.add_argument("--yes", action="store_true", help="delete it")
    return parser


def _list(store: Store, arguments: argparse.Namespace) -> int:
    rows = list(_rows(store))
    if arguments.json:
        print(json.dumps(rows, indent=2))
    elif not rows:
        print(f"{store.root} has no objects; `make demo`, or `rlhf sft --base <hub id or folder>`, makes some")
    else:
        width = max(len(row["id"]) for row in rows)
        for row in rows:
            refs = ", ".join(row["refs"])
            print(f"{row['id']:<{width}}  {row['created']:<25}  {readable_size(row['size']):>9}  {refs}".rstrip())
    return 0


def _rows(store: Store) -> Iterator[dict[str, Any]]:
    """Yield id, created, size in bytes and refs of every object; one that is damaged says so, after the others."""
    named: dict[str, list[str]] = {}
    for run, roles in store.refs().items():
        for role, name in roles.items():
            named.setdefault(name, []).append(f"{run}/{role}")
    rows = []
    for name in store.ids():
        try:
            manifest = store.manifest(name)
            created, size = manifest.created, manifest.size
        except ArtifactError:
            created, size = "damaged: see verify", 0
        rows.append({"id": name, "created": created, "size": size, "refs": named.get(name, [])})
    yield from sorted(rows, key=lambda row: (row["created"], row["id"]))


def _show(store: Store, arguments: argparse.Namespace) -> int:
    manifest = store.manifest(store.resolve(arguments.name, arguments.run))
    if arguments.json:
        print(manifest.to_json(), end="")
    else:
        fields = dataclasses.asdict(manifest)
        files = {name: f"{readable_size(entry.size):>9}  {entry.sha256}" for name, entry in manifest.files.items()}
        print("\n".join(_lines({"path": str(store.path(manifest.id)), **fields, "files": files})))
    return 0


def _lines(fields: dict[str, Any], indent: str = "") -> Iterator[str]:
    """Yield `name: value` lines, nested fields indented."""
    for name, value in fields.items():
        if isinstance(value, dict) and value:
            yield f"{indent}{name}:"
            yield from _lines(value, indent + "  ")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield f"{indent}{name}: {text}"


def _lineage(store: Store, arguments: argparse.Namespace) -> int:
    from rlhf_pipeline.artifacts import lineage

    name = store.resolve(arguments.name, arguments.run)
    if arguments.png:
        lineage.draw(store, name, Path(arguments.png))
        print(arguments.png)
    else:
        print(lineage.dot(store, name) if arguments.dot else lineage.text_tree(store, name))
    return 0


def _verify(store: Store, arguments: argparse.Namespace) -> int:
    from rlhf_pipeline.artifacts.verify import verify

    ids = [store.resolve(name, arguments.run) for name in arguments.names]
    problems = verify(store, ids or None)
    for problem in problems:
        print(problem)
    checked = len(ids or store.ids())
    if problems:
        advice = "`rm -rf` a damaged object and type the command that made it"
        raise ArtifactError(f"{len(problems)} problems in {checked} objects of {store.root}; {advice}")
    print(f"{checked} objects of {store.root}: every file, parent and ref is as it should be")
    return 0


def _merge(store: Store, arguments: argparse.Namespace) -> int:
    from rlhf_pipeline.artifacts.merge import merge

    name = store.resolve(arguments.name, arguments.run)
    role = arguments.role or f"{store.manifest(name).kind}-merged"
    merged = merge(store, name, arguments.run, role)
    print(f"{merged}  {store.path(merged)}  (ref {arguments.run}/{role})")
    return 0


def _ensemble(store: Store, arguments: argparse.Namespace) -> int:
    from rlhf_pipeline.artifacts.ensemble import aligned, join

    members = [store.resolve(name, arguments.run) for name in arguments.names]
    ensemble = join(store, members, arguments.run, arguments.role)
    if aligned([store.manifest(name) for name in members]) is None:
        print(
            "note: the members were not held out of the same rankings, so where each has its zero is not known; their "
            "mean is a reward, their minimum and disagreement are not, unless they were normalised alike"
        )
    print(f"{ensemble}  {store.path(ensemble)}  (ref {arguments.run}/{arguments.role})")
    return 0


def _gc(store: Store, arguments: argparse.Namespace) -> int:
    from rlhf_pipeline.artifacts.collect import collect

    garbage = collect(store, delete=arguments.yes)
    for item in [*garbage.objects, *garbage.folders]:
        print(item)
    count = (
        f"{len(garbage.objects)} objects and {len(garbage.folders)} unfinished folders, {readable_size(garbage.size)}"
    )
    print(f"deleted {count}" if arguments.yes else f"{count}; `rlhf artifacts gc --yes` deletes them")
    return 0
