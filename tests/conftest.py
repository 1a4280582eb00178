"""Tests keep what they compile in a folder of their own, not in the user's cache."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def cache_of_its_own(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUMMAND_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield
