"""What the TLS tests share: certificates, made on the host with openssl, and sessions over TLS."""

import dataclasses
import itertools
import ssl

from . import case
from .case import HostCase, Session

NAME = "mail.example.org"  # what the clients of these tests connect to
DIRECTORY = "/etc/popa3d-test"

# How `openssl genpkey` makes each kind of key.
KEYS = {
    "rsa": "-algorithm RSA -pkeyopt rsa_keygen_bits:2048",
    "p256": "-algorithm EC -pkeyopt ec_paramgen_curve:P-256",
    "p384": "-algorithm EC -pkeyopt ec_paramgen_curve:P-384",
    "p521": "-algorithm EC -pkeyopt ec_paramgen_curve:P-521",
    "ed25519": "-algorithm ED25519",
}

_CONFIGURATION = f"""[ca]
default_ca = here
[here]
dir = {DIRECTORY}
database = $dir/index
new_certs_dir = $dir
rand_serial = yes
unique_subject = no
default_md = sha256
policy = any
copy_extensions = copy
default_days = 90
[any]
commonName = supplied
[server]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[intermediate]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""

_numbers = itertools.count(1)
_addresses = itertools.count(1)
_prepared = []


@dataclasses.dataclass(frozen=True)
class Pair:
    """A certificate with its intermediate, and its key: files of the host."""

    chain: str
    key: str

    @property
    def setting(self):
        return f'{{ chain = "{self.chain}", key = "{self.key}" }}'

    @property
    def der(self):
        """The certificate itself, the first one of the chain."""
        pem = case.HOST.read(self.chain).decode()
        return ssl.PEM_cert_to_DER_cert(pem[pem.index("-----BEGIN CERTIFICATE"):].partition("-----END")[0]
                                        + "-----END CERTIFICATE-----\n")


def issue(*names, key="p256", start=None, end=None):
    """A new certificate for these host NAMES, by an intermediate authority; START and END as openssl
    wants them, YYYYMMDDHHMMSSZ."""
    _prepare()
    stem = f"{DIRECTORY}/{next(_numbers)}"
    alternatives = ",".join(f"DNS:{name}" for name in names)
    period = (f"-startdate {start} " if start else "") + (f"-enddate {end}" if end else "")
    case.HOST.shell(f"""umask 077; cd {DIRECTORY}
openssl genpkey -quiet {KEYS[key]} -out {stem}.key 2>/dev/null || openssl genpkey {KEYS[key]} -out {stem}.key
openssl req -new -key {stem}.key -subj '/CN={names[0]}' -addext 'subjectAltName={alternatives}' -out {stem}.csr
openssl ca -batch -config ca.cnf -extensions server -cert intermediate.crt -keyfile intermediate.key \
    -notext {period} -in {stem}.csr -out {stem}.one
cat {stem}.one intermediate.crt >{stem}.crt""")
    return Pair(f"{stem}.crt", f"{stem}.key")


def root():
    """The root that clients of these tests trust: a file of the host."""
    _prepare()
    return f"{DIRECTORY}/root.crt"


def _prepare():
    """Makes the root and the intermediate authority, once for a host."""
    if case.HOST in _prepared:
        return
    case.HOST.run("mkdir", "-m", "755", "-p", DIRECTORY)
    case.HOST.write(f"{DIRECTORY}/ca.cnf", _CONFIGURATION)
    case.HOST.shell(f"""cd {DIRECTORY}; : >index
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 90 -subj '/CN=Root' \
    -keyout root.key -out root.crt
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/CN=Intermediate' \
    -keyout intermediate.key -out intermediate.csr
openssl ca -batch -config ca.cnf -extensions intermediate -cert root.crt -keyfile root.key -notext \
    -in intermediate.csr -out intermediate.crt""")
    _prepared.append(case.HOST)


class TlsCase(HostCase):
    """A test on the shared host, which has a certificate for NAME."""

    def serve(self, *pairs, more=""):
        """Has sessions use these certificates for the length of this test."""
        self.settings(f"certificates = [{', '.join(pair.setting for pair in pairs)}]\n{more}")

    def address(self):
        """An address of the loopback network that no other test connects from."""
        number = next(_addresses)
        return f"127.7.{number // 250}.{number % 250 + 1}"

    def context(self, version=None):
        """What a careful client checks, with one VERSION of TLS if named."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self.host.read(root()).decode())
        if version:
            context.minimum_version = context.maximum_version = version
        return context

    def careless_context(self, version=None):
        """What a client has that takes any certificate."""
        context = self.context(version)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context

    def connect_tls(self, context=None, name=NAME, **options):
        """A session on port 995 whose greeting has been read."""
        session = Session(self, self.dial(995, **options))
        self.start_tls(session, context, name)
        session.greeting = session.line()
        self.assertRegex(session.greeting, rb"^\+OK")
        return session

    def connect_stls(self, context=None, name=NAME, **options):
        """A session on port 110 after STLS."""
        session = self.connect(**options)
        session.ok("STLS")
        self.start_tls(session, context, name)
        return session

    def start_tls(self, session, context=None, name=NAME):
        """The client's handshake. The end of a connection without close_notify is an error from here on."""
        context = context or self.context()
        session.connection = context.wrap_socket(session.connection, server_hostname=name,
                                                 suppress_ragged_eofs=False)
        self.addCleanup(session.close)

    def dial(self, port, **options):
        """A TCP connection, closed at the end of the test."""
        connection = self.host.connect(port, timeout=case.CONNECTION_TIMEOUT, **options)
        self.addCleanup(connection.close)
        return connection

    def log_in(self, session, user, password=case.PASSWORD):
        session.ok(f"USER {user}")
        session.ok(f"PASS {password}")

    def until_said(self, beginning, **fields):
        """Waits for a line with this BEGINNING and these fields."""
        return self.until(lambda: [line for line in self.messages(**fields) if line.startswith(beginning)],
                          f"{beginning!r} in {self.messages(**fields)}")


class ByHand:
    """A TLS client whose records the test sends itself."""

    def __init__(self, context, connection):
        self.connection = connection
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=NAME)

    def exchange(self, act):
        """Does ACT, with as many records to and fro as it needs."""
        while True:
            try:
                result = act()
            except ssl.SSLWantReadError:
                self.connection.sendall(self.outgoing.read())
                data = self.connection.recv(1 << 16)
                if not data:
                    self.incoming.write_eof()
                self.incoming.write(data)
            else:
                self.connection.sendall(self.outgoing.read())
                return result


def rest_of(connection):
    """All that comes until the end of the connection, however it ends."""
    received = b""
    try:
        while data := connection.recv(1 << 16):
            received += data
    except ConnectionResetError:
        pass
    return received
