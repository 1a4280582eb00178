"""Tests keep what they compile in a folder of their own, and random ones are the same every time.

`make test-nightly` draws other programs each night; what it finds becomes a test of its own.
"""

import os

import pytest
from hypothesis import settings

settings.register_profile("reproducible", derandomize=True, database=None)
if os.environ.get("SUMMAND_TEST_PROFILE") != "nightly":
    settings.load_profile("reproducible")


@pytest.fixture(scope="session", autouse=True)
def cache_of_its_own(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUMMAND_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield
