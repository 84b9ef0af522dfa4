"""Downloads that resume where they stopped."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.progress import TransferSpeedColumn as SpeedColumn

from ivcp.core.errors import UserError
from ivcp.core.lock import alone

CHUNK = 1 << 20
"""Most bytes that are received before they are written."""

TIMEOUT = 60.0
"""Seconds without a byte after which a connection is given up."""

WAITS = (1.0, 2.0, 4.0)
"""Seconds before each further try, as long as nothing new arrives."""

UNSATISFIABLE = 416
TRANSIENT = frozenset({408, 409, UNSATISFIABLE, 425, 429})
"""Statuses below 500 after which another try may succeed; it may after all from 500 on."""

BYTES = re.compile(r"bytes (\d{1,18})-")
DECIMAL = re.compile(r"\d{1,18}", re.ASCII)


class IncompleteError(Exception):
    """A try did not bring the rest of the file.

    Attributes:
        transient: Whether another try may.
    """

    def __init__(self, problem: str, *, transient: bool = True) -> None:
        super().__init__(problem)
        self.transient = transient


@dataclass(frozen=True)
class Version:
    """What a server says about a file; what has arrived of another version is of no use.

    Attributes:
        url: Where the file is.
        validator: Its strong entity tag, else the date of its last change; empty if not sent.
        total: Its bytes; None if not sent.
    """

    url: str
    validator: str = ""
    total: int | None = None

    @staticmethod
    def of(url: str, response: http.client.HTTPResponse) -> Version:
        """The version that a response belongs to."""
        tag = response.headers["ETag"] or ""
        validator = tag if tag.startswith('"') else response.headers["Last-Modified"] or ""
        total = response.headers["Content-Length"] or ""
        if response.status == http.HTTPStatus.PARTIAL_CONTENT:
            total = (response.headers["Content-Range"] or "").rpartition("/")[2]
        return Version(url, validator, int(total) if DECIMAL.fullmatch(total) else None)

    def contradicts(self, other: Version) -> bool:
        """Whether two responses can't be about the same file."""
        tags = {self.validator, other.validator} - {""}
        totals = {self.total, other.total} - {None}
        return len(tags) > 1 or len(totals) > 1


class PartialFile:
    """What has arrived of a file: `<path>.part`, with its version in `<path>.part.json`.

    Args:
        path: Where the complete file will be.
        url: Where it comes from; what came from elsewhere is dropped.
    """

    def __init__(self, path: Path, url: str) -> None:
        self.file = path.with_name(f"{path.name}.part")
        self.label = path.with_name(f"{path.name}.part.json")
        self.version = Version("")
        with contextlib.suppress(OSError, ValidationError):  # absent, torn or foreign
            self.version = TypeAdapter(Version).validate_json(self.label.read_bytes(), strict=True)
        if self.version.url != url or not self.file.exists():
            self.begin(Version(url))

    @property
    def size(self) -> int:
        """Bytes that have arrived."""
        return self.file.stat().st_size

    def begin(self, version: Version) -> None:
        """Drop what has arrived."""
        self.file.write_bytes(b"")
        self.label.write_bytes(TypeAdapter(Version).dump_json(version))
        self.version = version

    def remove(self) -> None:
        """Leave nothing behind."""
        self.file.unlink(missing_ok=True)
        self.label.unlink(missing_ok=True)


def fetch(url: str, path: Path, md5: Sequence[str]) -> None:
    """Download a file; if another process is just doing that, wait for it.

    What arrives lies in `<path>.part` until it is complete and checked. Whatever ends the download
    before that, the next call resumes it, if the server can do that and still has the same file.

    Args:
        url: Where it is.
        path: Where it will be; the folder is made.
        md5: Accepted sums in hexadecimal digits; empty accepts any file.

    Raises:
        UserError: It cannot be had or written, or is another file than expected.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        waiting = f"waiting for another process that downloads {path.name}"
        with alone(path.with_name(f"{path.name}.lock"), lambda: _notify(waiting)):
            if path.exists():
                return
            partial = PartialFile(path, url)
            try:
                _complete(partial, path)
                _check(partial, md5)
                partial.file.replace(path)
            finally:
                if path.exists() or not partial.size:
                    partial.remove()
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror or error}); make room or choose another "
            "folder with data.root=FOLDER. What has arrived is kept, and the next start goes on."
        ) from error


def _complete(partial: PartialFile, path: Path) -> None:
    """Receive what is missing, in as many tries as bring something new.

    Raises:
        OSError: It cannot be written.
        UserError: It cannot be had.
    """
    most, waits = partial.size, list(WAITS)
    with Progress(
        TextColumn(f"downloading {path.name}"),
        BarColumn(),
        DownloadColumn(),
        SpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as bar:
        bar.add_task("")
        while partial.size != partial.version.total:
            try:
                _receive(partial, bar)
                return
            except IncompleteError as error:
                if partial.size > most:
                    most, waits = partial.size, list(WAITS)
                if not waits or not error.transient:
                    resumed = " What has arrived is kept, and the next start goes on from there."
                    raise UserError(
                        f"{partial.version.url} could not be fetched ({error}); get the file by "
                        f"other means and put it at {path}.{resumed if partial.size else ''}"
                    ) from error
                time.sleep(waits.pop(0))


def _receive(partial: PartialFile, bar: Progress) -> None:
    """One try.

    Raises:
        IncompleteError: Not all has arrived.
        OSError: It cannot be written.
    """
    start, version = partial.size, partial.version
    with _request(partial) as response:
        if response.headers.get_content_type() == "text/html":  # a log-in, or a portal's greeting
            raise IncompleteError("a web page came instead of the file", transient=False)
        sent = Version.of(version.url, response)
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            partial.begin(sent)
        elif sent.contradicts(version) or _first_byte(response) != start:
            partial.begin(Version(version.url))
            raise IncompleteError("the file was changed there")
        bar.update(bar.task_ids[0], total=sent.total, completed=partial.size)
        with partial.file.open("ab") as file:
            for chunk in _chunks(response):
                file.write(chunk)
                file.flush()  # so that nothing is lost if this process is killed
                bar.advance(bar.task_ids[0], len(chunk))
    if sent.total is not None and partial.size < sent.total:
        raise IncompleteError(
            f"the connection ended after {partial.size:,} of {sent.total:,} bytes"
        )


def _request(partial: PartialFile) -> http.client.HTTPResponse:
    """The response to a request for what is missing."""
    headers = {"User-Agent": "ivcp", "Accept-Encoding": "identity"}
    if partial.size:
        headers["Range"] = f"bytes={partial.size}-"
        if partial.version.validator:
            headers["If-Range"] = partial.version.validator
    try:
        request = urllib.request.Request(partial.version.url, headers=headers)
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == UNSATISFIABLE:
            partial.begin(Version(partial.version.url))
        transient = error.code in TRANSIENT or error.code >= 500
        raise IncompleteError(
            f"status {error.code}, {error.reason}", transient=transient
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise IncompleteError(str(getattr(error, "reason", error))) from error
    except ValueError as error:
        raise IncompleteError(str(error), transient=False) from error
    return response


def _first_byte(response: http.client.HTTPResponse) -> int | None:
    """Where the content of a partial response begins."""
    match = BYTES.match(response.headers["Content-Range"] or "")
    return int(match.group(1)) if match else None


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """The content as it arrives."""
    try:
        while chunk := response.read1(CHUNK):
            yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise IncompleteError(f"the connection broke: {error}") from error


def _check(partial: PartialFile, md5: Sequence[str]) -> None:
    """Compare what has arrived with the accepted sums.

    Raises:
        OSError: It cannot be read.
        UserError: It has another sum. It is kept, for it may be what the publisher offers now.
    """
    if not md5:
        return
    digest = hashlib.md5(usedforsecurity=False)
    with partial.file.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    if digest.hexdigest() not in md5:
        raise UserError(
            f"Expected the md5 sum {' or '.join(md5)} of {partial.version.url}; got "
            f"{digest.hexdigest()}. Remove {partial.file} to fetch it again, or take it as it is "
            "with data.verify=false."
        )


def _notify(sentence: str) -> None:
    Console(stderr=True).print(sentence, highlight=False)
