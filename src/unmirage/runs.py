"""The run folder: everything that one command did, and from which the same command goes on.

- `Run` owns a folder: its manifest `run.json`, its lock and its logs.
- `JsonLines` is a log that is only appended to; a line counts once its newline is on the disk.
- `write_json` and `write_text` replace a file in one step, so a reader sees the old or the new one.

A process that is killed leaves at most one torn line at the end of a log, which the next run cuts off.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import platform
import secrets
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from unmirage.errors import UserError
from unmirage.schema import content_hash

MANIFEST = "run.json"
LOCK = ".lock"
TEMPORARY = ".unmirage-*.tmp"
PACKAGES = ("torch", "transformers", "peft", "accelerate")
ABSENT = object()

M = TypeVar("M", bound=BaseModel)


class Environment(BaseModel):
    """What a run was made with: package and platform versions, and the git commit of the working folder."""

    model_config = ConfigDict(extra="forbid")

    since: datetime
    versions: dict[str, str]
    git: str | None = None


class Manifest(BaseModel):
    """The content of `run.json`.

    `id` is the hash of command, configuration and input digests: the same experiment has the same id
    wherever and whenever it runs. `inputs` maps a name or path to the digest of its content. `resumed`
    lists every later environment that differs from the one before it, so mixed runs are seen as such.
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    version: Literal[1] = Field(default=1, alias="schema")
    id: str
    command: str
    created: datetime
    versions: dict[str, str]
    git: str | None
    seeds: list[int]
    config: dict[str, Any]
    inputs: dict[str, str]
    resumed: list[Environment] = []


class Run:
    """One run folder, open for writing and locked against other processes until it is closed.

    Use it as a context manager; `path` is the folder, `manifest` the content of its `run.json`.
    """

    def __init__(self, path: Path, manifest: Manifest, lock: int) -> None:
        """Wrap a folder that is already checked and locked; call `Run.open` instead."""
        self.path = path
        self.manifest = manifest
        self._lock: int | None = lock
        self._logs: dict[str, JsonLines] = {}

    @classmethod
    def open(cls, path: str | Path, command: str, config: Mapping[str, Any], inputs: Mapping[str, str]) -> Self:
        """Start the run in folder `path`, or go on with it where it was started with the same settings.

        `config` holds JSON-able values, paths, sets or pydantic models; `config["seed"]`, one integer or
        several, is recorded as the seeds. `inputs` maps names to content digests (`digest_file`).
        Raises UserError where the folder holds another configuration, something that is no run, a
        broken manifest, or is in use by another process, and where it cannot be written.
        """
        folder = Path(path)
        wanted = _new_manifest(command, _plain(dict(config)), dict(inputs))
        _check_folder(folder)
        return cls._locked(folder, wanted)

    @classmethod
    def reopen(cls, path: str | Path) -> Self:
        """Go on with an existing run whatever its settings, for example to judge its answers again.

        Raises UserError where there is no run in the folder, and as `Run.open` does.
        """
        return cls._locked(Path(path), read_manifest(path))

    @classmethod
    def _locked(cls, folder: Path, wanted: Manifest) -> Self:
        lock = _take_lock(folder)
        try:
            _remove_leftovers(folder)
            return cls(folder, _settle(folder, wanted), lock)
        except BaseException:
            os.close(lock)
            raise

    def log(self, name: str) -> JsonLines:
        """Return the append-only log `name` of this run, such as "answers.jsonl"; the run closes it."""
        return self._logs.setdefault(name, JsonLines(self.path / name))

    def write_json(self, name: str, obj: Any) -> Path:
        """Write `obj` to the file `name` of this run in one step and return its path."""
        return write_json(self.path / name, obj)

    def write_text(self, name: str, text: str) -> Path:
        """Write `text` to the file `name` of this run in one step and return its path."""
        return write_text(self.path / name, text)

    def close(self) -> None:
        """Close the logs and free the lock. Closing twice does nothing."""
        for log in self._logs.values():
            log.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        """Return the run itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the run, also after an error."""
        self.close()


class JsonLines:
    """A log of pydantic records, one JSON object a line, that is only ever appended to.

    It takes no lock: append to it only inside a `Run`, or where no other process writes the file.
    """

    def __init__(self, path: str | Path) -> None:
        """Name the file; nothing is opened or created before the first `append`."""
        self.path = Path(path)
        self._file: int | None = None
        self._end = 0

    def append(self, records: BaseModel | Iterable[BaseModel]) -> None:
        """Add one line for each record; when this returns they are on the disk.

        A torn line that a killed process left at the end is cut off first. Raises UserError where the
        disk is full or the file cannot be written; the log then ends as it did before the call.
        """
        several = [records] if isinstance(records, BaseModel) else list(records)
        data = b"".join(record.model_dump_json(by_alias=True).encode() + b"\n" for record in several)
        with _disk_errors(self.path):
            file = self._open() if self._file is None else self._file
            try:
                _write_all(file, data)
                os.fsync(file)
            except BaseException:
                self._take_back()
                raise
            self._end += len(data)

    def read(self, model: type[M]) -> list[M]:
        """Return all whole lines as `model`; a missing file reads as empty, a torn last line is left out.

        Raises UserError naming file, line (counting from 1) and field where another line is broken.
        """
        try:
            with self.path.open("rb") as file:
                lines = file.readlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UserError(f"Cannot read {self.path}: {error.strerror}.") from error
        if lines and not _is_whole(lines[-1]):
            lines.pop()
        return [self._parse(model, line, number) for number, line in enumerate(lines, start=1)]

    def close(self) -> None:
        """Close the file. The next `append` opens it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> Self:
        """Return the log itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file, also after an error."""
        self.close()

    def _open(self) -> int:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        opened = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            with os.fdopen(os.dup(opened), "rb") as file:
                self._end = _whole_bytes(file)
            os.ftruncate(opened, self._end)
            _sync_folder(self.path.parent)
        except BaseException:
            os.close(opened)
            raise
        # Only now: a later failure cuts the file at `_end`, which must be known before anything is written.
        self._file = opened
        return opened

    def _take_back(self) -> None:
        """After a failed write, drop the half-written end; where even that fails, the next opening does it."""
        if self._file is not None:
            with suppress(OSError):
                os.ftruncate(self._file, self._end)
        self.close()

    def _parse(self, model: type[M], line: bytes, number: int) -> M:
        try:
            return model.model_validate_json(line)
        except ValidationError as error:
            raise UserError(
                f"{self.path}, line {number} (counting from 1), {_first_error(error)}; "
                "delete that line and run the same command again to have it made anew."
            ) from error


def write_text(path: str | Path, text: str) -> Path:
    """Write `text` as UTF-8 to `path` in one step, see `write_bytes`."""
    return write_bytes(path, text.encode())


def write_bytes(path: str | Path, data: bytes) -> Path:
    """Write `data` to `path` in one step: a reader, or a kill, meets the old file or the new one.

    Missing parent folders are made. Raises UserError where the disk is full or cannot be written; the
    old file is then untouched.
    """
    target = Path(path)
    # In the same folder, because a rename is one step only within one file system.
    temporary = target.with_name(TEMPORARY.replace("*", secrets.token_hex(8)))
    with _disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            _write_synced(temporary, data)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(target.parent)
    return target


def write_json(path: str | Path, obj: Any) -> Path:
    """Write `obj`, JSON-able values, paths, sets, dataclasses or pydantic models, as indented JSON with `write_text`.

    Raises TypeError for other objects and ValueError for NaN and infinity, which JSON does not have.
    """
    text = json.dumps(obj, default=_to_json, indent=2, ensure_ascii=False, allow_nan=False)
    return write_text(path, text + "\n")


def read_manifest(path: str | Path) -> Manifest:
    """Return the manifest of the run in folder `path`; UserError where there is none or it is broken."""
    file = Path(path) / MANIFEST
    try:
        return Manifest.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        raise UserError(f"There is no run in {path}: {MANIFEST} is missing; give the folder of a run.") from None
    except OSError as error:
        raise UserError(f"Cannot read {file}: {error.strerror}.") from error
    except ValidationError as error:
        raise UserError(
            f"{file} is not a manifest that this version can read, {_first_error(error)}; "
            "restore the file, or give another --out."
        ) from error


def rewrite_config(path: str | Path, changes: Mapping[str, Any]) -> None:
    """Replace values in the configuration of the run in folder `path`, whose id follows; UserError where none is."""
    found = read_manifest(path)
    config = {**found.config, **_plain(dict(changes))}
    new_id = content_hash(found.command, config, found.inputs)[:12]
    write_json(Path(path) / MANIFEST, found.model_copy(update={"config": config, "id": new_id}))


def digest_file(path: str | Path) -> str:
    """SHA-256 of a file's content in hex, as `sha256sum` prints it; UserError where it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}; check the path.") from error


def digest_folder(path: str | Path) -> str:
    """Digest of the names and contents of all files under a folder, whatever their dates and order.

    Raises UserError where the folder is missing or a file cannot be read.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; check the path.")
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return content_hash([[file.relative_to(folder).as_posix(), digest_file(file)] for file in files])


def _new_manifest(command: str, config: dict[str, Any], inputs: dict[str, str]) -> Manifest:
    seed = config.get("seed")
    now = _environment()
    return Manifest(
        id=content_hash(command, config, inputs)[:12],
        command=command,
        created=now.since,
        versions=now.versions,
        git=now.git,
        seeds=seed if isinstance(seed, list) else [] if seed is None else [seed],
        config=config,
        inputs=inputs,
    )


def _check_folder(folder: Path) -> None:
    """Refuse a folder that holds something else, before anything is written into it."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file, not a folder; give another --out.")
    if not folder.is_dir() or (folder / MANIFEST).exists():
        return
    # A run that was killed before its manifest was there leaves only these.
    with _disk_errors(folder):
        strangers = [item.name for item in folder.iterdir() if item.name != LOCK and not item.match(TEMPORARY)]
    if strangers:
        raise UserError(
            f"{folder} is not empty and holds no run ({MANIFEST} is missing, {min(strangers)!r} is there); "
            "give another --out, or empty the folder."
        )


def _take_lock(folder: Path) -> int:
    with _disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            if not isinstance(error, BlockingIOError):
                raise
            raise UserError(
                f"Another process is writing the run in {folder}; wait until it has ended, or give another --out."
            ) from None
    return lock


def _settle(folder: Path, wanted: Manifest) -> Manifest:
    """Write the manifest of a new run, or check the one that is there against what is wanted."""
    if not (folder / MANIFEST).exists():
        write_json(folder / MANIFEST, wanted)
        return wanted
    found = read_manifest(folder)
    _check_same(folder, found, wanted)
    now = _environment()
    last = found.resumed[-1] if found.resumed else found
    if (last.versions, last.git) != (now.versions, now.git):
        found.resumed.append(now)
        write_json(folder / MANIFEST, found)
    return found


def _check_same(folder: Path, found: Manifest, wanted: Manifest) -> None:
    settings = {"command", "config", "inputs"}
    difference = _first_difference(found.model_dump(include=settings), wanted.model_dump(include=settings))
    if difference is not None:
        key, there, here = difference
        raise UserError(
            f"{folder} holds a run with another configuration: {key} is {there} there and {here} here; "
            "give another --out, or delete the folder to start anew."
        )


def _first_difference(there: Any, here: Any, key: str = "") -> tuple[str, str, str] | None:
    """Return the dotted key of the first value that differs and both values as text; None where all agree."""
    if not (isinstance(there, dict) and isinstance(here, dict)):
        return None if there == here else (key, _shown(there), _shown(here))
    for name in [*there, *(name for name in here if name not in there)]:
        below = f"{key}.{name}" if key else name
        difference = _first_difference(there.get(name, ABSENT), here.get(name, ABSENT), below)
        if difference is not None:
            return difference
    return None


def _shown(value: Any, longest: int = 80) -> str:
    text = "absent" if value is ABSENT else repr(value)
    return text if len(text) <= longest else text[: longest - 3] + "..."


def _environment() -> Environment:
    versions = {"unmirage": _version("unmirage") or "unknown", "python": platform.python_version()}
    versions["platform"] = platform.platform()
    versions |= {package: found for package in PACKAGES if (found := _version(package))}
    return Environment(since=datetime.now(UTC), versions=versions, git=_git_commit())


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """Return the commit of the working folder, with "-dirty" where tracked files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration as it reads back from JSON, so that tuples and paths compare equal later."""
    plain: dict[str, Any] = json.loads(json.dumps(config, default=_to_json, allow_nan=False))
    return plain


def _to_json(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON: {value!r}")


def _first_error(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"field {where!r}: {first['msg']}" if where else str(first["msg"])


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into a sentence for the user."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"No space left on the disk while writing {path}; nothing that was already written is lost; "
                "free space and run the same command again."
            ) from error
        raise UserError(f"Cannot write {path}: {error.strerror or error}.") from error


def _write_all(file: int, data: bytes) -> None:
    """Write all of `data`; one `os.write` may take only a part of it."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


def _write_synced(path: Path, data: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        _write_all(file, data)
        os.fsync(file)
    finally:
        os.close(file)


def _sync_folder(folder: Path) -> None:
    """Put a new name in a folder on the disk too; the content alone does not survive a power cut without it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_leftovers(folder: Path) -> None:
    """Delete half-written files of a killed process; only called by the owner of the lock."""
    for leftover in folder.rglob(TEMPORARY):
        leftover.unlink(missing_ok=True)


def _is_whole(line: bytes) -> bool:
    if not line.endswith(b"\n"):
        return False
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _whole_bytes(file: BinaryIO) -> int:
    """Length in bytes of the log without a torn last line; holds one line at a time in memory."""
    before, last = 0, b""
    for line in file:
        before, last = before + len(last), line
    return before + len(last) if _is_whole(last) else before
