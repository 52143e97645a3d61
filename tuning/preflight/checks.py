"""Judges what nodes say of themselves: problems, and notes on what works but could be better.

Plain functions of plain facts, so that each can be tried by hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from model.wording import plural
from tuning.preflight.needs import Needs
from tuning.preflight.probe import NodeFacts
from tuning.storage.place import AnyPath
from tuning.storage.remote_path import RemotePath

#: Free where Ray keeps its temporary files: logs, and our packages.
_TEMPORARY = 100 * 10**6
#: Free in shared memory beside the data: what Ray sends to and fro.
_SHARED = 20 * 10**6
#: Versions that must agree, and how many of their numbers.
_VERSIONS = {"python": 2, "ray": 3, "torch": 3}
_NAMES = {"python": "Python", "ray": "Ray", "torch": "torch"}


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node as Ray knows it.

    Attributes:
        id: Ray's id, hexadecimal.
        name: What a reader knows it by.
        gpus: As Ray says.
        store: Bytes of its object store.
    """

    id: str
    name: str
    gpus: float = 0
    store: int = 0


def of_storage(facts: NodeFacts, storage: AnyPath, needs: Needs) -> Iterator[str]:
    """Problems of the storage as the driver sees it."""
    if facts.storage_problem is not None:
        yield f"{storage}: cannot be written by the driver: {facts.storage_problem}."
    elif facts.storage_free < needs.disk:
        trials = plural(needs.trials, "trial")
        weights = f", and the best weights of {trials}, {size(needs.weights)} each"
        yield (
            f"{storage}: {size(facts.storage_free)} are free, but the search writes about "
            f"{size(needs.disk)} (the data{weights if needs.trials else ''}); "
            "free some space or choose another --storage."
        )


def of_node(
    node: Node, facts: NodeFacts, driver: NodeFacts, storage: AnyPath, *, seen: bool
) -> Iterator[str]:
    """Problems of a node that trials may run on, beside those of `of_machine`.

    Args:
        node: The node.
        facts: What it says.
        driver: What the driver says.
        storage: Of the experiments.
        seen: Whether the driver read what the node wrote into the storage.
    """
    yield from _storage(node, facts, driver, storage, seen=seen)
    yield from _versions(node, facts, driver)
    if facts.fetch_problem is not None:
        yield (
            f"{node.name}: cannot fetch the data from the driver's node "
            f"({facts.fetch_problem}); open the ports between the nodes to each other."
        )


def of_machine(node: Node, facts: NodeFacts, needs: Needs) -> Iterator[str]:
    """Problems of a node's own disk, memory and GPUs."""
    if facts.temporary_free < _TEMPORARY:
        yield (
            f"{node.name}: {facts.temporary}: {size(facts.temporary_free)} are free, but Ray's "
            f"temporary files need {size(_TEMPORARY)}; free some space, or start Ray there with "
            "another --temp-dir."
        )
    if needs.data > node.store:
        yield (
            f"{node.name}: Ray's object store holds {size(node.store)}, but the data are "
            f"{size(needs.data)}; start Ray there with a larger --object-store-memory."
        )
    elif _in_shm(facts) and facts.shm_free < needs.data + _SHARED:
        yield (
            f"{node.name}: /dev/shm: {size(facts.shm_free)} of {size(facts.shm_size)} are free, "
            f"but the data need {size(needs.data + _SHARED)} of shared memory; remove files there, "
            "or give it more (docker run --shm-size)."
        )
    if needs.gpus and facts.gpus is not None and facts.gpus < node.gpus:
        yield (
            f"{node.name}: Ray offers {node.gpus:g} GPU, but torch sees {facts.gpus}; install the "
            "GPU's driver and a torch that is built for it, or start Ray there with "
            f"--num-gpus={facts.gpus}."
        )


def notes_on(node: Node, facts: NodeFacts, driver: NodeFacts) -> Iterator[str]:
    """What works, but is not as it should be."""
    if facts.store is not None and not _in_shm(facts):
        yield (
            f"{node.name}: /dev/shm has {size(facts.shm_size)}, less than Ray's object store of "
            f"{size(node.store)}, which therefore lies on disk ({facts.store}) and is slow; give "
            "it more (docker run --shm-size)."
        )
    here, there = driver.versions.get("python"), facts.versions.get("python")
    if here != there and _agree("python", here, there):
        yield f"{node.name}: Python {there}, and the driver has {here}."


def _storage(
    node: Node, facts: NodeFacts, driver: NodeFacts, storage: AnyPath, *, seen: bool
) -> Iterator[str]:
    if isinstance(storage, RemotePath):
        yield from _object_store(node, facts, driver, storage, seen=seen)
        return
    if not facts.there:
        yield (
            f"{node.name}: {storage}: is not there; mount the same directory on every node, or "
            "choose another --storage."
        )
    elif driver.storage_problem is None and not facts.shared:
        yield (
            f"{node.name}: {storage}: is another directory than the driver's, which has the same "
            "name; mount the same one on every node, or choose another --storage."
        )
    if facts.storage_problem is not None:
        yield f"{node.name}: {storage}: cannot be written: {facts.storage_problem}."
    elif facts.shared and not seen:
        yield (
            f"{node.name}: {storage}: what it writes there does not reach the driver; mount the "
            "same directory on every node, or choose another --storage."
        )


def _object_store(
    node: Node, facts: NodeFacts, driver: NodeFacts, storage: AnyPath, *, seen: bool
) -> Iterator[str]:
    if facts.storage_problem is not None:
        yield (
            f"{node.name}: {storage}: cannot be written: {facts.storage_problem}. Nodes have "
            "credentials of their own: an instance's role, or AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY where 'ray start' is run."
        )
    elif driver.storage_problem is None and not (facts.shared and seen):
        yield (
            f"{node.name}: {storage}: is another one than the driver's; set AWS_ENDPOINT_URL to "
            "the same everywhere, or write ?endpoint_override=URL behind --storage."
        )


def _versions(node: Node, facts: NodeFacts, driver: NodeFacts) -> Iterator[str]:
    for said in disagreements(facts.versions, driver.versions):
        yield f"{node.name}: {said}; install the same everywhere."


def disagreements(there: Mapping[str, str], here: Mapping[str, str]) -> Iterator[str]:
    """What a node has other versions of than the driver, so that it cannot run its trials.

    Args:
        there: Versions on the node, as `tuning.environment.versions` gives them.
        here: The driver's.
    """
    for package, name in _NAMES.items():
        own, drivers = there.get(package), here.get(package)
        if not _agree(package, drivers, own):
            has = f"has no {name}" if own is None else f"has {name} {own}"
            yield f"{has}, but the driver has {drivers}"


def _agree(package: str, here: str | None, there: str | None) -> bool:
    """Whether two versions do; a suffix (+cpu, +cu130) says for which device it was built."""
    if here is None or there is None:
        return here == there
    numbers = _VERSIONS[package]
    return _first(here, numbers) == _first(there, numbers)


def _first(version: str, numbers: int) -> list[str]:
    return version.partition("+")[0].split(".")[:numbers]


def _in_shm(facts: NodeFacts) -> bool:
    return facts.store == "/dev/shm"


def size(count: int) -> str:
    """Bytes in words: 1.5 GB."""
    for unit, factor in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count} bytes"


def told_apart(nodes: Mapping[str, str]) -> dict[str, str]:
    """Names of nodes, by id, with the beginning of the id where several have the same."""
    names = list(nodes.values())
    return {
        node: f"node {name}" if names.count(name) == 1 else f"node {name} ({node[:8]})"
        for node, name in nodes.items()
    }
