import pytest

from tuning.journal import Journal


@pytest.fixture(autouse=True)
def journals_closed(monkeypatch):
    """Closes the journals a test leaves open, as the death of their process would."""
    journals, initialise = [], Journal.__init__

    def remembered(self, *arguments, **keywords):
        initialise(self, *arguments, **keywords)
        journals.append(self)

    monkeypatch.setattr(Journal, "__init__", remembered)
    yield
    for journal in journals:
        journal.close()
