"""A driver's clocks for tests: one that is set while it runs, and one that nobody sets."""

#: Seconds since 1970 at which everything here begins.
BEGUN = 1_750_000_000.0


class FakeTime:
    """Stands for the module `time` where the journal asks it.

    Attributes:
        now: What nobody sees: how long it has been, in seconds.
        set_by: How much the machine's clock was set by until now, in seconds.
    """

    def __init__(self, monkeypatch):
        self.now = self.set_by = 0.0
        monkeypatch.setattr("tuning.journal.segments.time", self)

    def time(self):
        return BEGUN + self.now + self.set_by

    def monotonic(self):
        return 5000.0 + self.now  # since the machine was started
