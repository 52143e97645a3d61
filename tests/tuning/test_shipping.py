import pytest

from model.errors import ConfigurationError
from tests.tuning.jobs_support import names_in
from tuning import shipping


def test_a_package_has_our_code_and_what_it_is_given_and_nothing_else(tmp_path, monkeypatch):
    root = tmp_path / "project"
    for name in (
        *("model/a.py", "model/everyday.txt", "tuning/b/c.py", "sweep.yaml"),
        *(".env", "model/.env", "model/key.pem", "tuning/.hidden/d.py", ".git/config", ".netrc"),
        *("data/corpus.txt", "runs/one/experiment.json", "wandb/x.py", "tuning/__pycache__/b.pyc"),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "model" / "link.py").symlink_to(root / ".env")
    monkeypatch.setattr(shipping, "ROOT", root)
    monkeypatch.setattr(shipping, "git_commit", lambda: "abc")
    content = shipping.package({"submitted/sweep.yaml": root / "sweep.yaml"})
    assert names_in(content) == [
        *("model/a.py", "tuning/b/c.py", "model/everyday.txt", "submitted/sweep.yaml", "COMMIT")
    ]
    (root / "model" / "a.py").touch()
    assert shipping.package({"submitted/sweep.yaml": root / "sweep.yaml"}) == content


def test_our_package_can_run_by_itself():
    names = names_in(shipping.package({}))
    assert {"tuning/__main__.py", "model/everyday.txt", "tuning/jobs/sending.py"} <= {*names}
    assert not [n for n in names if not n.endswith((".py", "everyday.txt", "COMMIT"))]


def test_a_package_that_is_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(shipping, "LIMIT_BYTES", 2**10)
    with pytest.raises(ConfigurationError, match=r"--data: the package has \d+ MB, but 0 MB is"):
        shipping.package({})
