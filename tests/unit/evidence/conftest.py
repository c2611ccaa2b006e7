"""One simulated platform for all tests of the package."""

from __future__ import annotations

import pytest
from tests.simulators.sgx_platform import SgxPlatform, make_platform


@pytest.fixture(scope="session")
def platform() -> SgxPlatform:
    return make_platform()
