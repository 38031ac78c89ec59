# SPDX-License-Identifier: MIT
"""What several tests of faults share."""

from collections.abc import Iterator

import pytest

from tests.faults.sabotage import Saboteur


@pytest.fixture(scope="session")
def saboteur(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Saboteur]:
    """Runs yester commands with something going wrong."""
    with Saboteur(tmp_path_factory.mktemp("saboteur")) as saboteur:
        yield saboteur
