"""The image of the Kubernetes cluster."""

import re

from tests.deploy.files import KUBERNETES, ROOT, secrets_in, unpinned

DOCKERFILE = (KUBERNETES / "Dockerfile").read_text(encoding="utf-8")


def test_the_image_installs_what_requirements_pin():
    assert "pip install --no-cache-dir -r requirements.txt 'ray[default]==" in DOCKERFILE
    assert unpinned(DOCKERFILE) == []
    assert secrets_in(DOCKERFILE) == []


def test_the_build_sees_what_it_copies_and_nothing_else():
    copied = re.findall(r"^COPY --chown=1000:1000 (\S+) ", DOCKERFILE, re.MULTILINE)
    assert all((ROOT / path).exists() for path in copied)
    ignore = (KUBERNETES / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in ignore if not line.startswith("#")]
    assert rules[0] == "*"
    assert [rule[1:] for rule in rules if rule.startswith("!")] == copied
    assert "**/.env*" in rules


def test_the_launcher_finds_its_tools_in_it():
    """Of cluster.yaml with Docker: it copies by rsync and attaches by tmux, in the container."""
    (installed,) = re.findall(r"--no-install-recommends (.*?) \\\n", DOCKERFILE)
    assert {"rsync", "tmux"} <= set(installed.split())


def test_it_says_of_which_commit_it_is():
    """To `tuning.environment.git_commit`, which looks beside the packages."""
    assert "WORKDIR /opt/dialogue-tune\n" in DOCKERFILE
    assert DOCKERFILE.endswith("""ARG COMMIT=""\nRUN printf '%s\\n' "$COMMIT" > COMMIT\n""")
    assert '--build-arg COMMIT="$(git describe ' in DOCKERFILE
