from substitutes import DOOR, peer_tests

globals().update(peer_tests("numpy._core.tests.test_dlpack", DOOR))
