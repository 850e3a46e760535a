from substitutes import CONSUMER, peer_tests

globals().update(peer_tests("numpy._core.tests.test_dlpack", CONSUMER))
