"""The line of progress."""

import re

from deq_collapse.callbacks import RunProgress


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
