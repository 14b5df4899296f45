"""Options of a cluster's jobs, as a user types them."""

import pytest

from deq_collapse.cli.study import study_parser
from deq_collapse.errors import UserError
from deq_collapse.study.cluster import read_options


def test_options_given_one_by_one_or_together_all_count():
    typed = ["submit", "study.yaml", "--set", "timeout_min=600", "gpus_per_node=1", "--set", "mem_gb=8.5"]
    options = study_parser().parse_args(typed).set
    assert read_options(options) == {"timeout_min": 600, "gpus_per_node": 1, "mem_gb": 8.5}


def test_an_option_without_a_value_is_refused_in_one_sentence():
    with pytest.raises(UserError, match=r"^--set takes KEY=VALUE, .* but was given mem_gb\.$"):
        read_options(["timeout_min=600", "mem_gb"])
