"""What tests/bench compares: POP3 servers side by side on one booted Debian host.

All of them use one PAM stack, popa3d's own, and a cheap password hash: what is measured is the servers.
"""
