"""What the tests of lm_eval's tasks share."""

import pytest

from task_sets import write_sets


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A folder of small data sets as Parquet, for the shipped tasks."""
    return write_sets(tmp_path_factory.mktemp("data"))
