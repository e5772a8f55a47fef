"""System tests: popa3d on a booted Debian host, used as an admin and as users do.

One host serves all tests of a release; each test has users of its own, and puts back what it changed.
"""
