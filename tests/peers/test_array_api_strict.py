"""The tests of DLPack in array-api-strict, the array API consortium's reference on PyPI."""

import strict_exported
from array_api_strict.tests.test_array_object import test_dlpack_2023_12  # noqa: F401
from array_api_strict.tests.test_creation_functions import (
    test_from_dlpack_default_device,  # noqa: F401
)
from substitutes import Exported


def test_they_meet_us() -> None:
    assert isinstance(strict_exported.asarray([1.0])._array, Exported)
