"""Who may use a Ray: nobody without its token, with real clusters and real strangers."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from model.errors import ResourceError
from tests.security.ray_head import RayHead, listening
from tests.tuning.ray_support import ROOT
from tuning import authentication
from tuning.authentication import Answer, ask, check_authentication, without_token

pytestmark = pytest.mark.ray

TOKEN = "5f0c" * 16
WRONG = "a1b2" * 16

#: A driver that holds the Ray that a search would start, until its input ends.
_HOLD = """
import sys
from tuning.cluster import connected
with connected(None):
    import ray
    print(ray.get_runtime_context().gcs_address, flush=True)
    sys.stdin.read()
"""

_USE = """
import ray, sys
ray.init(address=sys.argv[1], log_to_driver=False)
print("ran", ray.get(ray.remote(lambda: 40 + 2).remote(), timeout=60))
"""


def clean_environment(home):
    """Without anything of Ray's, in a home without a token."""
    others = {name: v for name, v in os.environ.items() if not name.startswith("RAY")}
    return others | {"HOME": str(home), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def with_token(environment, token):
    return environment | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}


@pytest.fixture(scope="module")
def directory():
    """With a short name, as Ray's sockets need."""
    path = Path(tempfile.mkdtemp(prefix="access-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def closed(directory):
    """A cluster that asks for a token."""
    with RayHead(directory / "closed", with_token(clean_environment(directory), TOKEN)) as head:
        yield head


@pytest.fixture(scope="module")
def open_to_all(directory):
    """A cluster that asks for none."""
    environment = clean_environment(directory) | {"RAY_AUTH_MODE": "disabled"}
    with RayHead(directory / "open", environment) as head:
        yield head


@pytest.fixture
def outside(directory, monkeypatch):
    """This process as one that knows nothing of any token."""
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(directory))


# A cluster with a token


def test_a_stranger_is_refused(closed, directory):
    clean = clean_environment(directory)
    assert ask(closed.address, clean) == Answer(False)
    assert ask(closed.address, clean | {"RAY_AUTH_MODE": "disabled"}) == Answer(False)
    assert ask(closed.address, with_token(clean, WRONG)) == Answer(False)
    assert ask(closed.address, with_token(clean, TOKEN)).accepted


@pytest.mark.slow
def test_code_is_run_for_the_token_alone(closed, directory):
    """Ray's own client, which tries for twenty seconds before it gives up."""
    clean = clean_environment(directory)
    assert use(closed, with_token(clean, TOKEN)).stdout == "ran 42\n"
    for environment in (clean | {"RAY_AUTH_MODE": "disabled"}, with_token(clean, WRONG)):
        done = use(closed, environment)
        assert done.returncode != 0
        assert "ran" not in done.stdout
        assert "Authentication token is missing or incorrect" in done.stderr


def use(head, environment):
    return subprocess.run(
        [sys.executable, "-c", _USE, head.address],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_a_node_without_the_token_cannot_join(closed, directory):
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--num-cpus=1"]
    done = subprocess.run(
        [*start, f"--address={closed.address}", f"--temp-dir={directory / 'joining'}"],
        env=with_token(clean_environment(directory), WRONG),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "token is missing or incorrect" in done.stdout + done.stderr
    told = ask(closed.address, with_token(clean_environment(directory), TOKEN))
    assert len(told.nodes) == 1


def test_a_search_is_told_what_is_wrong_with_its_token(closed, outside, monkeypatch, directory):
    def refused():
        with pytest.raises(ResourceError) as caught:
            check_authentication(closed.address)
        return str(caught.value)

    assert refused() == (
        f"--address {closed.address}: the cluster asks for a token, and there is none here; set "
        "RAY_AUTH_MODE=token, and put the cluster's token into ~/.ray/auth_token or a file that "
        "RAY_AUTH_TOKEN_PATH names."
    )
    (directory / "token").write_text(TOKEN, encoding="utf-8")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(directory / "token"))
    assert refused().endswith("set RAY_AUTH_MODE=token, which sends the one that is here.")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert check_authentication(closed.address) is None
    (directory / "token").write_text(WRONG, encoding="utf-8")
    assert refused().endswith("asks for a token, and ours is not the cluster's.")


# A cluster without one


def test_a_cluster_that_takes_anybodys_code_is_refused(open_to_all, outside, monkeypatch):
    told = ask(open_to_all.address, without_token(os.environ))
    if not told.reachable:
        pytest.skip("this machine has no address but that of its loopback")
    where = ", ".join(told.nodes)
    problem = (
        f"--address {open_to_all.address}: this cluster takes anybody's code: it asks for no "
        f"token, and other machines can reach it ({where})"
    )
    with pytest.raises(ResourceError) as caught:
        check_authentication(open_to_all.address)
    assert str(caught.value) == (
        f"{problem}; start it with RAY_AUTH_MODE=token on every node, or set "
        "RAY_AUTH_MODE=disabled here to use it as it is."
    )
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert check_authentication(open_to_all.address) == f"{problem}."


def test_on_the_loopback_address_alone_no_token_is_asked_for(monkeypatch, outside):
    answers = {"127.0.0.1": None, "::1": None, "localhost": None, "10.0.0.7": ResourceError}
    for node, error in answers.items():
        told = Answer(True, ("127.0.0.1", node))
        monkeypatch.setattr(authentication, "ask", lambda address, environment, told=told: told)
        if error is None:
            assert check_authentication("auto") is None
        else:
            with pytest.raises(error, match=r"other machines can reach it \(10\.0\.0\.7\)"):
                check_authentication("auto")


def test_of_a_cluster_that_does_not_answer_nothing_is_said(monkeypatch, outside):
    monkeypatch.setattr(authentication, "_PATIENCE", 0.01)
    assert ask("127.0.0.1:1", os.environ) == Answer(None)
    assert check_authentication("127.0.0.1:1") is None


def test_a_token_is_looked_for_where_ray_looks(outside, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert not authentication.has_token()
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text(TOKEN, encoding="utf-8")
    assert authentication.has_token()
    monkeypatch.setenv("HOME", "/nowhere")
    assert not authentication.has_token()
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        with monkeypatch.context() as local:
            local.setenv(name, "x")
            assert authentication.has_token()


# The Ray that a search starts for itself


@pytest.fixture(scope="module")
def held(directory):
    """The process of a driver, and the address of the Ray that it has started."""
    temporary = directory / "held"
    temporary.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD],
        env=clean_environment(directory) | {"TMPDIR": str(temporary)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    address = process.stdout.readline().strip()
    yield temporary, address
    _, said = process.communicate("", timeout=60)
    assert process.returncode == 0, said


def test_a_searchs_own_ray_refuses_strangers(held, directory):
    _, address = held
    clean = clean_environment(directory)
    assert ask(address, clean | {"RAY_AUTH_MODE": "disabled"}) == Answer(False)
    assert ask(address, with_token(clean, WRONG)) == Answer(False)


def test_its_token_is_in_no_file_of_the_home(held, directory):
    """Ray itself would write one to ~/.ray/auth_token."""
    assert not (directory / ".ray").exists()


def test_nobody_else_comes_to_its_files(held):
    """Ray itself lets everybody write where its sockets and logs are."""
    temporary, _ = held
    (session,) = temporary.glob("ray-*/s/session_2*/sockets")
    assert session.stat().st_mode & 0o777 == 0o777, "no longer needed"
    (private,) = temporary.glob("ray-*")
    assert private.stat().st_mode & 0o777 == 0o700


def test_it_listens_on_the_loopback_address_alone(held):
    """So that nobody on another machine can even try."""
    temporary, address = held
    ports = listening(temporary)
    assert int(address.rpartition(":")[2]) in {port for _, port in ports}
    assert {host for host, _ in ports} == {"127.0.0.1"}
