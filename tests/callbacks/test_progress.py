"""The line of progress."""

import re
from io import StringIO

from rich.console import Console
from rich.text import Text

from deq_collapse.callbacks import RunProgress, progress


def test_in_a_log_file_a_line_names_run_epoch_error_and_nc1(ready, tmp_path, capsys):
    run = ready(tmp_path, "explicit", epochs=5)
    run.trainer.callbacks.append(RunProgress("my run"))
    run.trainer.fit(run.module, run.data)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("my run")]
    assert [re.search(r"epoch (\d)/5", line)[1] for line in lines] == list("12345")
    assert all(re.search(r"train error 0\.\d{4}  NC1 \d", line) for line in lines)


def test_a_long_run_says_a_line_for_about_every_tenth_of_it(ready, tmp_path, capsys):
    run = ready(tmp_path, "explicit", epochs=40)
    run.trainer.limit_train_batches = 1
    run.trainer.callbacks.append(RunProgress("long"))
    run.trainer.fit(run.module, run.data)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("long")]
    assert [int(re.search(r"epoch (\d+)/40", line)[1]) for line in lines] == [1, *range(5, 38, 4), 40]


def test_within_a_long_epoch_a_log_file_is_told_how_far_it_is(ready, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "SILENCE", 0.0)
    run = ready(tmp_path, "explicit", epochs=2)
    run.trainer.callbacks.append(RunProgress("slow"))
    run.trainer.fit(run.module, run.data)
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines() if line.startswith("slow")]
    batches, measured = run.trainer.num_training_batches, sum(run.trainer.num_val_batches)
    assert measured > run.trainer.num_val_batches[0]
    assert [told[2] for told in lines if told[1] in ("epoch 1", "epoch 2")] == 2 * [
        *(f"trained {done}/{batches}" for done in range(1, batches + 1)),
        *(f"measured {done}/{measured}" for done in range(1, measured + 1)),
    ]


class Watched(RunProgress):
    """Keeps what the bar says after each batch."""

    def __init__(self) -> None:
        super().__init__("live")
        self.console = Console(file=StringIO(), force_terminal=True, width=160)
        self.seen: list[tuple[float, str]] = []

    def _keep(self) -> None:
        (task,) = self._bar.tasks
        self.seen.append((task.completed, task.fields["within"]))

    def on_train_batch_end(self, *args) -> None:
        super().on_train_batch_end(*args)
        self._keep()

    def on_validation_batch_end(self, *args) -> None:
        super().on_validation_batch_end(*args)
        self._keep()


def test_on_a_terminal_the_bar_moves_within_an_epoch(ready, tmp_path):
    run, line = ready(tmp_path, "explicit", epochs=1), Watched()
    run.trainer.callbacks.append(line)
    run.trainer.fit(run.module, run.data)
    batches, measured = run.trainer.num_training_batches, sum(run.trainer.num_val_batches)
    assert line.seen == [
        *((0.99 * done / batches, f"trained {done}/{batches}") for done in range(1, batches + 1)),
        *((0.99, f"measured {done}/{measured}") for done in range(1, measured + 1)),
    ]
    assert "live epoch 1/1" in Text.from_ansi(line.console.file.getvalue()).plain
