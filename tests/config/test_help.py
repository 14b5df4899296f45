"""Help as a terminal shows it."""

import pytest

from deq_collapse.cli import main


@pytest.mark.parametrize(
    "args",
    [
        ["--help"],
        ["--model.refinement.help", "deq_collapse.models.Equilibrium"],
        ["--data.source.help", "deq_collapse.data.Digits"],
    ],
)
def test_help_names_the_program_and_has_no_markup_of_a_page(args, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["fit", *args])
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert shown.startswith(("usage: deq-collapse", "Help for"))
    assert "``" not in shown
    assert ":class:" not in shown


def test_help_of_a_class_lists_what_its_keys_take(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--model.refinement.help", "deq_collapse.models.Equilibrium"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "deq_collapse.models.ResidualCell" in shown
    assert "known subclasses: )" not in shown
