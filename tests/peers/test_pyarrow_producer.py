from substitutes import PRODUCER, peer_tests

globals().update(peer_tests("pyarrow.tests.test_dlpack", PRODUCER))
