"""Looks at a cluster before the first trial: all that is wrong is said at once, in words."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from model.errors import ResourceError
from model.files import reason_of
from tuning.cluster import Resources, fitting
from tuning.preflight.checks import Node, notes_on, of_machine, of_node, of_storage, told_apart
from tuning.preflight.needs import Needs
from tuning.preflight.node_types import growth
from tuning.preflight.probe import DRIVER, NodeFacts, mail_file, probe, remove_mail

#: How long a node may take to answer: it may have to unpack our packages first.
ANSWER_SECONDS = 30.0
#: Smaller objects travel with the task itself, and would prove nothing.
_OBJECT_BYTES = 2**20


class PreflightError(ResourceError):
    """A search cannot run on a cluster as it is.

    Args:
        problems: One line each: the node, the path, the number, and what would be right.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(self.problems)


def _say(note: str) -> None:
    print(f"note: {note}", flush=True)


def preflight(
    resources: Resources,
    storage: Path,
    address: str | None,
    needs: Needs,
    *,
    wait: float = ANSWER_SECONDS,
    say: Callable[[str], None] = _say,
) -> int:
    """Checks the cluster that we are connected to; nothing is left of it in the storage.

    Args:
        resources: Of one trial.
        storage: Directory that every node reads and writes.
        address: As asked for; for None, a Ray of this machine alone, disk and shared memory are
            looked at, and no task is run.
        needs: Of the search.
        wait: Seconds that all nodes together may take to answer.
        say: Hears what works, but is not as it should be.

    Returns:
        How many trials the cluster can run at once, see `tuning.cluster.fitting`.

    Raises:
        PreflightError: with everything that is wrong.
    """
    check = _Preflight(resources, storage.resolve(), needs, wait)
    check.run(alone=address is None)
    for note in check.notes:
        say(note)
    if check.problems:
        raise PreflightError(check.problems)
    return check.room


@dataclass
class _Preflight:
    """One run of it."""

    resources: Resources
    storage: Path
    needs: Needs
    wait: float
    room: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def run(self, *, alone: bool) -> None:
        import ray

        self._fit()
        mail = [ray.put(np.zeros(_OBJECT_BYTES, dtype=np.uint8))]
        own, nodes = _known_nodes(ray.get_runtime_context().get_node_id())
        if alone:
            facts = probe(mail, str(self.storage), None, DRIVER, count_gpus=self._count_gpus)
            self.problems.extend(of_storage(facts, self.storage, self.needs))
            self._machine(own, facts, facts)
            return
        token = secrets.token_hex(16)
        with _mailbox(self.storage, token) as problem:
            driver = probe(mail, str(self.storage), token, DRIVER)
            if problem is not None:
                driver = replace(driver, storage_problem=problem)
            self.problems.extend(of_storage(driver, self.storage, self.needs))
            if own not in nodes:
                self._machine(own, driver, driver)
            self._nodes(nodes, driver, mail, token)

    def _fit(self) -> None:
        more = growth()
        try:
            self.room = fitting(self.resources, more)
        except ResourceError as error:
            self.problems.append(str(error))
        if more is not None and more.problem is not None:
            self.notes.append(
                f"what the autoscaler may add is not known ({more.problem}); "
                "only the nodes that are there count."
            )

    @property
    def _count_gpus(self) -> bool:
        return self.needs.gpus and self.resources.gpus > 0

    def _machine(self, node: Node, facts: NodeFacts, driver: NodeFacts) -> None:
        self.problems.extend(of_machine(node, facts, self.needs))
        self.notes.extend(notes_on(node, facts, driver))

    def _nodes(self, nodes: Sequence[Node], driver: NodeFacts, mail: list[Any], token: str) -> None:
        import ray

        arguments = (mail, str(self.storage), token)
        for node, facts in _ask(nodes, arguments, self.wait, count_gpus=self._count_gpus):
            if facts is None:
                self.notes.append(f"{node.name}: was lost just now; the search begins without it.")
                continue
            if isinstance(facts, str):
                self.problems.append(f"{node.name}: {facts}")
                continue
            seen = _reads(mail_file(self.storage, token, node.id), token)
            if facts.shared and not seen:
                removed = _on(node, remove_mail).remote(str(self.storage), token, node.id)
                ray.wait([removed], timeout=self.wait)
            self.problems.extend(of_node(node, facts, driver, self.storage, seen=seen))
            self._machine(node, facts, driver)


def _known_nodes(own: str) -> tuple[Node, list[Node]]:
    """The driver's node, and all that may run trials."""
    import ray

    alive = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
    names = told_apart({i: n["NodeName"] or n["NodeManagerAddress"] for i, n in alive.items()})
    found = {
        i: Node(
            id=i,
            name=names[i],
            gpus=node["Resources"].get("GPU", 0),
            store=int(node["Resources"].get("object_store_memory", 0)),
        )
        for i, node in alive.items()
    }
    runs = [i for i, n in alive.items() if n["Resources"].keys() & {"CPU", "GPU"}]
    return found[own], sorted((found[i] for i in runs), key=lambda node: node.name)


def _on(node: Node, function: Callable[..., Any]) -> Any:
    """A function as a task for one node; it takes none of what trials hold there."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node.id, soft=False)
    return ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(function)


def _ask(
    nodes: Sequence[Node], arguments: tuple[list[Any], str, str], wait: float, *, count_gpus: bool
) -> Iterator[tuple[Node, NodeFacts | str | None]]:
    """Asks all nodes at once; gives what each says, or why it says nothing; None if it was lost."""
    import ray

    asked = {
        _on(node, probe).remote(*arguments, node.id, count_gpus=count_gpus and node.gpus > 0): node
        for node in nodes
    }
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=wait) if asked else ([], [])
    for reference, node in asked.items():
        if reference not in answered:
            ray.cancel(reference, force=True)
            if not _is_alive(node):
                yield node, None
                continue
            yield node, f"does not answer within {wait:g} s; restart Ray there, or end it."
            continue
        try:
            yield node, ray.get(reference)
        except ray.exceptions.RayError as error:
            yield node, f"cannot run our code: {_last_line(error)}" if _is_alive(node) else None


def _is_alive(node: Node) -> bool:
    """Whether the cluster has not given the node up meanwhile."""
    import ray

    return any(known["NodeID"] == node.id and known["Alive"] for known in ray.nodes())


def _last_line(error: Exception) -> str:
    return [line.strip() for line in str(error).splitlines() if line.strip()][-1]


def _reads(file: Path, token: str) -> bool:
    with suppress(OSError):
        return file.read_text(encoding="utf-8") == token
    return False


@contextmanager
def _mailbox(storage: Path, token: str) -> Iterator[str | None]:
    """Makes a directory, and removes afterwards all that was not there.

    Gives why the directory cannot be made, or None.
    """
    made = [path for path in (storage, *storage.parents) if not path.exists()]
    problem = None
    try:
        storage.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = reason_of(error)
    try:
        yield problem
    finally:
        for file in storage.glob(mail_file(storage, token, "*").name):
            with suppress(OSError):
                file.unlink()
        for path in made:
            with suppress(OSError):  # something of somebody else's is in it by now
                path.rmdir()
