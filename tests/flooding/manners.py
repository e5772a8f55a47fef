"""How the connections of an attack behave."""


class Silent:
    """Says nothing, and takes what comes."""

    RECEIVE_BUFFER = None  # octets that the kernel keeps for it; None: what it will
    PAUSE = None  # seconds between what it does; None: it does nothing

    def __init__(self, plan, number):
        self.plan, self.number = plan, number

    def goes_on_listening(self, connection, octets):
        """Hears what the server said; false when it will read by itself from now on."""
        return True

    def act(self, connection):
        """Does what is due."""


class Brief(Silent):
    """Goes as soon as it is greeted."""

    def goes_on_listening(self, connection, octets):
        raise ConnectionResetError


class SlowWriter(Silent):
    """Sends a command that has no end, an octet a second."""

    PAUSE = 1

    def act(self, connection):
        connection.send(b"x")


class SlowReader(Silent):
    """Logs in, wants a big message, and takes an octet of it a second."""

    RECEIVE_BUFFER = 4096
    PAUSE = 1

    def __init__(self, plan, number):
        super().__init__(plan, number)
        self._commands = self.commands()
        self._reads_slowly = False

    def commands(self):
        """What it has to say; the answer to the last one is what it reads slowly."""
        yield f"USER {self.plan.user}{self.number % self.plan.users}\r\n"
        yield f"PASS {self.plan.password}\r\n"
        yield "RETR 1\r\n"

    def goes_on_listening(self, connection, octets):
        if octets.startswith(b"+OK"):
            command = next(self._commands)
            connection.send(command.encode())
            self._reads_slowly = not command.startswith(("USER", "PASS"))
        return not self._reads_slowly

    def act(self, connection):
        if self._reads_slowly and not connection.recv(1):
            raise ConnectionResetError


class DeafAsker(SlowReader):
    """The same without an account: asks for the capabilities a thousand times."""

    def commands(self):
        yield "CAPA\r\n" * 1000


MANNERS = {"silent": Silent, "brief": Brief, "slow writers": SlowWriter, "slow readers": SlowReader,
           "deaf askers": DeafAsker}
