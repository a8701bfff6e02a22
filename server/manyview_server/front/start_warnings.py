"""Problems that the log reports when the server starts: plugins that cannot be used, and missing protection."""

from __future__ import annotations

import logging
from ipaddress import ip_address

from manyview_server.config import ServeSettings
from manyview_server.supervise.catalogue.catalogue import Catalogue

log = logging.getLogger(__name__)


def log_plugin_errors(catalogue: Catalogue) -> None:
    """Log each plugin that is installed but cannot be used."""
    for problem in catalogue.plugin_errors:
        log.error(
            "plugin %r of %s (%s) is left out: %s",
            problem.name,
            problem.package,
            problem.group,
            problem.problem,
            extra={"traceback": problem.traceback},
        )


def warn_if_unprotected(settings: ServeSettings) -> None:
    """Warn if other machines can reach the server without a token, or if tokens travel unencrypted."""
    if settings.token_file is None and not _is_local(settings.listen):
        log.warning("other machines can reach %s, and the server asks for no token", settings.listen)
    if settings.token_file is not None and settings.tls_cert is None and not _is_local(settings.listen):
        log.warning(
            "tokens travel to %s unencrypted: set tls_cert and tls_key, or put a proxy with TLS in front",
            settings.listen,
        )


def _is_local(listen: str) -> bool:
    host = listen.rpartition(":")[0].strip("[]")
    try:
        return listen.startswith("unix:") or host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
