"""The certificate that the server shows."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from hpc_agent.errors import ConfigError


@dataclass(frozen=True)
class CertificateFiles:
    """PEM files; the key may be in the certificate's own."""

    certificate: Path
    key: Path | None = None

    def load(self) -> ssl.SSLContext:
        """
        Raises:
            ConfigError: they cannot be read, or do not belong together.
        """
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        names = str(self.certificate) if self.key is None else f"{self.certificate} with the key {self.key}"
        try:
            # Without a password at hand OpenSSL would ask the terminal for one.
            context.load_cert_chain(self.certificate, self.key, password=lambda: "")
        except ssl.SSLError as error:
            raise ConfigError(
                f"the certificate {names} cannot be used ({error.reason or error}); "
                "give PEM files that belong together, the key without a password"
            ) from error
        except OSError as error:
            raise ConfigError(f"the certificate {names} cannot be read: {error.strerror}") from error
        return context
