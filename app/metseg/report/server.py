"""Serves the report and its viewer to this machine's browser alone.

The address holds a secret, because other users of the machine can reach its ports too; only files that belong to the
report are served, by name, so no path leads anywhere else.
"""

import http.server
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from typing_extensions import override

from metseg.errors import OutputError
from metseg.report.case_store import CASES_FOLDER, locate_case
from metseg.report.page import read_asset
from metseg.report.report_files import PAGE_FILE
from metseg.report.viewer import ViewerCase, render_viewer

logger = logging.getLogger(__name__)

HOST: Final = "127.0.0.1"
SECRET_BYTES: Final = 12

ASSETS: Final = {
    "niivue.umd.js": "text/javascript",
    "viewer.js": "text/javascript",
    "viewer.css": "text/css",
    "report.css": "text/css",
}
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self' data: blob:; worker-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What a viewer page may load: this server's files and what it makes itself, nothing else."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request gets: bytes, or a file to send.

    Attributes:
        body: the content, or the file that holds it.
        kind: media type of the content.
        policy: content security policy of the answer; empty where the page brings its own.
    """

    body: bytes | Path
    kind: str
    policy: str = POLICY


@dataclass(frozen=True, slots=True)
class Site:
    """What there is to serve.

    Attributes:
        report_dir: the report's folder.
        cases: the report's cases by ID.
    """

    report_dir: Path
    cases: Mapping[str, ViewerCase]

    def answer(self, path: str) -> Answer | None:
        """What lies under a path (after the secret); None where there is nothing."""
        parts = [unquote(part, errors="surrogateescape") for part in path.split("/")]
        match parts:
            case [""]:
                return self._answer_page()
            case ["assets", name] if name in ASSETS:
                return Answer(read_asset(name).encode(), ASSETS[name])
            case ["viewer", case_id, ""] if case_id in self.cases:
                return Answer(render_viewer(self.cases[case_id]).encode(), "text/html; charset=utf-8")
            case ["viewer", case_id, "volumes", name] if case_id in self.cases:
                return self._answer_volume(self.cases[case_id], name)
            case [folder, name, picture] if folder == CASES_FOLDER:
                return self._answer_picture(name, picture)
        return None

    def _answer_page(self) -> Answer | None:
        try:
            page = (self.report_dir / PAGE_FILE).read_text(encoding="utf-8")
        except OSError:
            return None
        shown = page.replace('data-viewer="no"', 'data-viewer="yes"', 1)
        return Answer(shown.encode(), "text/html; charset=utf-8", policy="")

    def _answer_volume(self, case: ViewerCase, url_name: str) -> Answer | None:
        for name, known in case.url_names.items():
            if known == url_name:
                return Answer(case.volumes[name], "application/octet-stream")
        return None

    def _answer_picture(self, folder_name: str, name: str) -> Answer | None:
        known = (case.folder_name for case in self.cases.values() if name in case.report.pictures)
        if folder_name not in known:
            return None
        return Answer(locate_case(self.report_dir, folder_name) / name, "image/webp")


class ViewerServer(http.server.ThreadingHTTPServer):
    """The server; `url` is where a browser finds it.

    Args:
        site: what to serve.
        port: 0 for any that is free.

    Raises:
        OutputError: the port can't be used.
    """

    daemon_threads = True

    def __init__(self, site: Site, port: int = 0) -> None:
        self.site = site
        self.secret = secrets.token_urlsafe(SECRET_BYTES)
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise OutputError(
                f"port {port} can't be used: {error.strerror or error}", hint="Leave --port out to take a free one."
            ) from error

    @property
    def url(self) -> str:
        """Address of the report, secret included."""
        return f"http://{HOST}:{self.server_port}/{self.secret}/"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: ViewerServer
    protocol_version = "HTTP/1.1"
    server_version = "metseg"

    def do_GET(self) -> None:
        answer = self._find()
        if answer is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        try:
            body = answer.body.read_bytes() if isinstance(answer.body, Path) else answer.body
        except OSError:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        if answer.policy:
            self.send_header("Content-Security-Policy", answer.policy)
        self.end_headers()
        self.wfile.write(body)

    def _find(self) -> Answer | None:
        # Another name for this address means that some page of the internet pretends to be this one.
        if self.headers.get("Host", "") not in {
            f"{HOST}:{self.server.server_port}",
            f"localhost:{self.server.server_port}",
        }:
            return None
        _, secret, *rest = [*urlsplit(self.path).path.split("/", 2), ""]
        if not secrets.compare_digest(secret.encode(), self.server.secret.encode()):
            return None
        return self.server.site.answer(rest[0])

    @override
    def log_message(self, format: str, *args: object) -> None:
        logger.debug("viewer: %s", format % args)
