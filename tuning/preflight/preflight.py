"""Looks at a cluster before the first trial: all that is wrong is said at once, in words."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from model.errors import ResourceError
from model.files import reason_of
from tuning.cluster import Resources, fitting
from tuning.nodes import ask, last_line, leaving, name_of, on_node
from tuning.preflight.checks import Node, notes_on, of_machine, of_node, of_storage, told_apart
from tuning.preflight.gpu_demand import Demand
from tuning.preflight.gpu_probe import measure as measure_there
from tuning.preflight.gpus import Measure, try_packing
from tuning.preflight.needs import Needs
from tuning.preflight.node_types import Growth, growth
from tuning.preflight.probe import DRIVER, NodeFacts, mail_file, probe, remove_mail
from tuning.storage.place import AnyPath
from tuning.storage.remote_path import RemotePath

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


@dataclass(frozen=True)
class Room:
    """What a cluster has for a search.

    Attributes:
        trials: How many it can run at once, see `tuning.cluster.fitting`.
        resources: Of one trial: as asked for, or more of a GPU, where fewer fit on one.
        more: What the autoscaler may add; None for nothing.
    """

    trials: int
    resources: Resources
    more: Growth | None


def _say(note: str) -> None:
    print(f"note: {note}", flush=True)


def preflight(
    resources: Resources,
    storage: AnyPath,
    address: str | None,
    needs: Needs,
    *,
    demand: Callable[[], Demand] | None = None,
    wait: float = ANSWER_SECONDS,
    say: Callable[[str], None] = _say,
    measure: Measure = measure_there,
) -> Room:
    """Checks the cluster that we are connected to; nothing is left of it in the storage.

    Args:
        resources: Of one trial.
        storage: What every node reads and writes.
        address: As asked for; for None, a Ray of this machine alone, disk and shared memory are
            looked at, and an object store is tried; no task is run.
        needs: Of the search.
        demand: Tells what trials ask of a GPU at the most; asked, and tried on a GPU of each kind,
            where they hold any.
        wait: Seconds that all nodes together may take to answer.
        say: Hears what works, but is not as it should be.
        measure: What is run on a GPU, see `tuning.preflight.gpu_probe`.

    Raises:
        PreflightError: with everything that is wrong.
    """
    check = _Preflight(resources, storage.resolve(), needs, wait)
    check.run(alone=address is None)
    if demand is not None:
        check.pack(demand, measure)
    for note in check.notes:
        say(note)
    if check.problems:
        raise PreflightError(check.problems)
    return Room(check.room, check.resources, check.more)


@dataclass
class _Preflight:
    """One run of it."""

    resources: Resources
    storage: AnyPath
    needs: Needs
    wait: float
    room: int = 0
    more: Growth | None = None
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sound: list[Node] = field(default_factory=list)
    silent: frozenset[str] = frozenset()

    def run(self, *, alone: bool) -> None:
        import ray

        self._fit()
        mail = [ray.put(np.zeros(_OBJECT_BYTES, dtype=np.uint8))]
        own, nodes, gone = _known_nodes(ray.get_runtime_context().get_node_id())
        self.notes.extend(
            f"{node.name}: is about to leave the cluster; the search begins without it."
            for node in gone
        )
        if alone:
            token = secrets.token_hex(16) if isinstance(self.storage, RemotePath) else None
            facts = probe(mail, str(self.storage), token, DRIVER, count_gpus=self._count_gpus)
            if token is not None:
                remove_mail(str(self.storage), token, DRIVER)
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
        self.more = growth()
        try:
            self.room = fitting(self.resources, self.more)
        except ResourceError as error:
            self.problems.append(str(error))
        if self.more is not None and self.more.problem is not None:
            self.notes.append(
                f"what the autoscaler may add is not known ({self.more.problem}); "
                "only the nodes that are there count."
            )

    @property
    def _count_gpus(self) -> bool:
        return self.needs.gpus and self.resources.gpus > 0

    def pack(self, demand: Callable[[], Demand], measure: Measure) -> None:
        """Tries a trial on a GPU of each kind; lets fewer share one where fewer fit."""
        if not self._count_gpus or not self.room:
            return
        packing = try_packing(self.resources, self.sound, demand(), measure=measure)
        self.problems.extend(packing.problems)
        self.notes.extend(packing.notes)
        if packing.gpus != self.resources.gpus:
            self.resources = replace(self.resources, gpus=packing.gpus)
            self.room = fitting(self.resources, self.more, self.silent)

    def _machine(self, node: Node, facts: NodeFacts, driver: NodeFacts) -> None:
        problems = list(of_machine(node, facts, self.needs))
        self.problems.extend(problems)
        if not problems:
            self.sound.append(node)
        self.notes.extend(notes_on(node, facts, driver))

    def _nodes(self, nodes: Sequence[Node], driver: NodeFacts, mail: list[Any], token: str) -> None:
        import ray

        arguments = (mail, str(self.storage), token)
        silent = []
        for node, facts in _ask(nodes, arguments, self.wait, count_gpus=self._count_gpus):
            if facts is None:
                self.notes.append(f"{node.name}: was lost just now; the search begins without it.")
                continue
            if isinstance(facts, TimeoutError):
                silent.append(node)
                continue
            if isinstance(facts, str):
                self.problems.append(f"{node.name}: {facts}")
                continue
            seen = _reads(mail_file(self.storage, token, node.id), token)
            if facts.shared and not seen:
                remove = on_node(node.id, remove_mail, max_retries=0)
                removed = remove.remote(str(self.storage), token, node.id)
                ray.wait([removed], timeout=self.wait)
            self.problems.extend(of_node(node, facts, driver, self.storage, seen=seen))
            self._machine(node, facts, driver)
        if silent:
            self._without(silent)

    def _without(self, silent: Sequence[Node]) -> None:
        """Nodes that do not answer: where others have room for a trial, Ray may give them up.

        So a search can be started, and resumed, just while a host is being lost.
        """
        self.silent = frozenset(node.id for node in silent)
        try:
            fitting(self.resources, None, self.silent)
        except ResourceError:
            advice = "restart Ray there, or end it."
            self.problems.extend(f"{node.name}: {self._mute}; {advice}" for node in silent)
            return
        self.room = fitting(self.resources, self.more, self.silent)
        self.notes.extend(
            f"{node.name}: {self._mute}; the search begins without it, and Ray gives it up in "
            "about a minute, unless it comes back."
            for node in silent
        )

    @property
    def _mute(self) -> str:
        return f"does not answer within {self.wait:g} s"


def _known_nodes(own: str) -> tuple[Node, list[Node], list[Node]]:
    """The driver's node, all that may run trials, and those that would but are about to leave."""
    import ray

    alive = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
    names = told_apart({i: name_of(n) for i, n in alive.items()})
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
    gone = leaving()

    def named(ids: Iterable[str]) -> list[Node]:
        return sorted((found[i] for i in ids), key=lambda node: node.name)

    return found[own], named(set(runs) - gone), named(gone.intersection(runs))


def _ask(
    nodes: Sequence[Node], arguments: tuple[list[Any], str, str], wait: float, *, count_gpus: bool
) -> Iterator[tuple[Node, NodeFacts | str | TimeoutError | None]]:
    """Asks all nodes at once; gives what each says.

    That is a text where a node cannot say, `TimeoutError` where it is silent, None where it was
    lost.
    """
    asked = {
        node: on_node(node.id, probe, max_retries=0).remote(
            *arguments, node.id, count_gpus=count_gpus and node.gpus > 0
        )
        for node in nodes
    }
    for node, answer in ask(asked, wait).items():
        if isinstance(answer, NodeFacts):
            yield node, answer
        elif not _is_alive(node):
            yield node, None
        elif answer is None:
            yield node, TimeoutError()
        else:
            yield node, f"cannot run our code: {last_line(answer)}"


def _is_alive(node: Node) -> bool:
    """Whether the cluster has not given the node up meanwhile."""
    import ray

    return any(known["NodeID"] == node.id and known["Alive"] for known in ray.nodes())


def _reads(file: AnyPath, token: str) -> bool:
    with suppress(OSError):
        return file.read_text(encoding="utf-8") == token
    return False


@contextmanager
def _mailbox(storage: AnyPath, token: str) -> Iterator[str | None]:
    """Makes a directory, and removes afterwards all that was not there.

    Gives why the directory cannot be made, or None.
    """
    if isinstance(storage, RemotePath):  # where there are no directories
        yield None
        with suppress(OSError):
            for mail in storage.iterdir():
                if token in mail.name:
                    mail.unlink(missing_ok=True)
        return
    made = [path for path in (storage, *storage.parents) if not path.exists()]
    problem = None
    try:
        storage.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = reason_of(error)
    try:
        yield problem
    finally:
        for file in storage.glob(f"*{token}*"):
            with suppress(OSError):
                file.unlink()
        for path in made:
            with suppress(OSError):  # something of somebody else's is in it by now
                path.rmdir()
