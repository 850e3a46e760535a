from substitutes import PRODUCER, peer_tests

globals().update(peer_tests("numpy._core.tests.test_dlpack", PRODUCER))
