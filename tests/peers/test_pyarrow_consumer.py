from substitutes import CONSUMER, peer_tests

globals().update(peer_tests("pyarrow.tests.test_dlpack", CONSUMER))
