"""A self-signed certificate for the test server: kubectl sends bearer tokens over TLS only."""

import ipaddress
import ssl
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True, kw_only=True, slots=True)
class Certificate:
    chain_pem: bytes
    key_pem: bytes


def make_certificate() -> Certificate:
    """For 127.0.0.1 and localhost, for a day."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test-api-server")])
    now = datetime.now(UTC)
    hosts = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    private = serialization.PrivateFormat.PKCS8
    return Certificate(
        chain_pem=certificate.public_bytes(encoding),
        key_pem=key.private_bytes(encoding, private, serialization.NoEncryption()),
    )


def server_context(certificate: Certificate) -> ssl.SSLContext:
    """OpenSSL reads files only: they exist for that moment."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with tempfile.TemporaryDirectory() as folder:
        chain, key = Path(folder, "server.crt"), Path(folder, "server.key")
        chain.write_bytes(certificate.chain_pem)
        key.write_bytes(certificate.key_pem)
        context.load_cert_chain(chain, key)
    return context
