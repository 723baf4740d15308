"""A small Hugging Face Hub on loopback, for tests: accounts, repositories, LFS, Xet, access rules, faults on demand.

The API answers on 127.0.0.1 and large files come from `localhost`, another origin for a client, as on the real Hub.
Everything is in memory, apart from Xet's chunk store, which the client itself writes to a folder.
"""

import base64
import hashlib
import json
import re
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml


def git_sha1(data: bytes) -> str:
    """The name that git gives to a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Account:
    name: str
    role: str = "write"
    orgs: tuple[str, ...] = ()


@dataclass(frozen=True)
class File:
    """A file as a commit has it; a large one by its checksum, as its content may lie in Xet's store."""

    data: bytes
    sha256: str = ""
    size: int = 0

    @classmethod
    def large(cls, data: bytes) -> "File":
        return cls(data, hashlib.sha256(data).hexdigest(), len(data))

    @property
    def length(self) -> int:
        return self.size or len(self.data)

    @property
    def oid(self) -> str:
        if not self.sha256:
            return git_sha1(self.data)
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size}\n"
        return git_sha1(pointer.encode())

    @property
    def etag(self) -> str:
        return self.sha256 or git_sha1(self.data)


@dataclass
class Commit:
    files: dict[str, File]
    parent: str | None
    message: str

    @property
    def sha(self) -> str:
        listing = [(path, file.oid) for path, file in sorted(self.files.items())]
        return hashlib.sha1(json.dumps([listing, self.parent, self.message]).encode()).hexdigest()


@dataclass
class Repo:
    private: bool = False
    gated: bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    """refs/heads/main, refs/tags/v1, refs/pr/1 -> commit."""

    def add(self, ref: str, commit: Commit) -> str:
        self.commits[commit.sha] = commit
        self.refs[ref] = commit.sha
        return commit.sha

    def resolve(self, revision: str) -> str | None:
        for ref in (revision, f"refs/heads/{revision}", f"refs/tags/{revision}"):
            if ref in self.refs:
                return self.refs[ref]
        return revision if revision in self.commits else None

    @property
    def head(self) -> Commit:
        return self.commits[self.refs["refs/heads/main"]]


@dataclass
class Fault:
    """What happens to the next `times` requests of a method and path: an answer, or a cut after `after` bytes."""

    method: str
    path: str
    status: int = 500
    times: int = 1
    headers: dict[str, str] = field(default_factory=dict)
    after: int | None = None
    then: Callable[[], None] | None = None
    """Run before the answer: another client that does something at this moment."""
    does_it: bool = False
    """Do what is asked, then answer with the status all the same: an answer that was lost on the way."""


class Hub:
    """The state of the server, and what a test may change of it."""

    def __init__(self, xet: Path | None = None) -> None:
        self.tokens: dict[str, Account] = {}
        self.repos: dict[str, Repo] = {}
        """By name; a Space is `spaces/ORG/NAME`."""
        self.datasets: dict[str, tuple[list[str], bytes]] = {}
        """Tags and eval.yaml of data sets."""
        self.blobs: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.log: list[str] = []
        self.waits: list[float] = []
        """Seconds that the client would have waited, in place of waiting."""
        self.authorized_cdn = False
        self.xet = xet
        self.xet_hashes: dict[str, str] = {}
        self.lock = threading.RLock()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def fault(self, method: str, path: str, status: int = 500, **options: Any) -> None:
        self.faults.append(Fault(method, path, status, **options))

    def count(self, pattern: str) -> int:
        return sum(bool(re.search(pattern, line)) for line in self.log)

    def create(self, name: str, private: bool = False) -> Repo:
        repo = self.repos[name] = Repo(private)
        repo.add("refs/heads/main", Commit({".gitattributes": File(b"*.safetensors filter=lfs\n")}, None, "init"))
        return repo

    def commit(self, name: str, message: str = "other", **files: bytes) -> str:
        """What somebody else commits to main; `_` in a keyword stands for the dot of a file's name."""
        repo = self.repos[name]
        added = {path.replace("_", "."): File(data) for path, data in files.items()}
        return repo.add("refs/heads/main", Commit({**repo.head.files, **added}, repo.head.sha, message))

    def read_shards(self) -> None:
        """Learn which Xet hash stands for which sha256 from the shards that a client has written."""
        for shard in (self.xet or Path()).rglob("*.mdb"):
            data, at = shard.read_bytes(), 48
            while data[at : at + 32] != b"\xff" * 32:
                xet_hash, (flags, entries) = data[at : at + 32], struct.unpack_from("<II", data, at + 32)
                at += 48 * (1 + entries * (2 if flags >> 31 & 1 else 1))
                if flags >> 30 & 1:
                    self.xet_hashes[_hex(data[at : at + 32])] = _hex(xet_hash)
                    at += 48


def _hex(merkle: bytes) -> str:
    return "".join(f"{part:016x}" for part in struct.unpack("<4Q", merkle))


class Refusal(Exception):
    def __init__(self, status: int, message: str, code: str = "", **headers: str) -> None:
        super().__init__(message)
        self.status, self.headers = status, {"X-Error-Message": message, **headers}
        if code:
            self.headers["X-Error-Code"] = code


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer waits 40 ms for the other side
    hub: Hub

    def log_message(self, *args: object) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self.handle_request
        raise AttributeError(name)

    def handle_request(self) -> None:
        hub, self.path_only = self.hub, urlsplit(self.path).path
        self.query = {key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}
        with hub.lock:
            hub.log.append(f"{self.command} {self.path_only}")
            fault = next(
                (f for f in hub.faults if f.method == self.command and re.search(f.path, self.path_only)), None
            )
            if fault:
                fault.times -= 1
                if not fault.times:
                    hub.faults.remove(fault)
        if fault and fault.then:
            fault.then()
        if fault and fault.after is not None and self.command == "PUT":
            self.rfile.read(fault.after)
            self.connection.close()
            self.close_connection = True
            return
        self.cut = fault.after if fault else None
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if fault and fault.status >= 300 and self.cut is None and not fault.does_it:
            self.reply(fault.status, {"error": f"fault {fault.status}"}, fault.headers)
            return
        try:
            with hub.lock:
                status, body, headers = self.route()
        except Refusal as refusal:
            status, body, headers = refusal.status, {"error": str(refusal)}, refusal.headers
        if fault and fault.does_it:
            status, body, headers = fault.status, {"error": f"fault {fault.status}"}, fault.headers
        self.reply(status, body, headers)

    def reply(self, status: int, body: Any, headers: dict[str, str]) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.cut is not None:
            self.wfile.write(data[: self.cut])
            self.wfile.flush()
            self.connection.close()
            self.close_connection = True
        else:
            self.wfile.write(data)

    # Who asks, and what they may see.

    def account(self) -> Account | None:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if given and given not in self.hub.tokens:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return self.hub.tokens.get(given)

    def repo(self, name: str, write: bool = False, content: bool = False) -> Repo:
        who = self.account()
        owner = name.removeprefix("spaces/").split("/")[0]
        mine = who is not None and owner in (who.name, *who.orgs)
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and not mine):
            raise Refusal(404 if who else 401, "Repository not found", "RepoNotFound")
        if repo.gated and content and not mine:
            raise Refusal(403 if who else 401, "Access to this model is restricted", "GatedRepo")
        if write and not (who and mine and who.role == "write"):
            raise Refusal(403, f"You don't have the rights to write to {name}")
        return repo

    def revision(self, repo: Repo, revision: str) -> str:
        sha = repo.resolve(revision)
        if sha is None:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return sha

    # Routes.

    def route(self) -> tuple[int, Any, dict[str, str]]:
        method = "GET" if self.command == "HEAD" else self.command
        for wanted, pattern, action in ROUTES:
            match = re.fullmatch(pattern, self.path_only)
            if method == wanted and match:
                answer = action(self, *(unquote(part) for part in match.groups()))
                return answer if isinstance(answer, tuple) else (200, answer, {})
        raise Refusal(404, f"no route {self.command} {self.path_only}")

    def json(self) -> dict[str, Any]:
        return json.loads(self.body)

    def whoami(self) -> Any:
        who = self.account()
        if who is None:
            raise Refusal(401, "Invalid username or password.")
        orgs = [{"name": org, "type": "org"} for org in who.orgs]
        token = {"displayName": "t", "role": who.role}
        return {
            "type": "user",
            "name": who.name,
            "orgs": orgs,
            "auth": {"type": "access_token", "accessToken": token},
        }

    def create_repo(self) -> Any:
        who, wanted = self.account(), self.json()
        if who is None:
            raise Refusal(401, "Invalid username or password.")
        name = f"{wanted.get('organization') or who.name}/{wanted['name']}"
        if who.role != "write" or name.split("/")[0] not in (who.name, *who.orgs):
            raise Refusal(403, f"You don't have the rights to create a model under the namespace {name.split('/')[0]}")
        answer = {"url": f"{self.hub.url}/{name}", "name": name, "id": name}
        space = wanted.get("type") == "space"
        name = f"spaces/{name}" if space else name
        if name in self.hub.repos:
            return 409, {"error": "You already created this repo", **answer}, {}
        self.hub.create(name, wanted.get("visibility") == "private" or wanted.get("private", False))
        if space:
            self.hub.commit(name, README_md=f"---\nsdk: {wanted['sdk']}\n---\n".encode())
        return answer

    def validate_yaml(self) -> Any:
        content = self.json()["content"]
        try:
            yaml.safe_load(content.split("---")[1])
        except (yaml.YAMLError, IndexError) as error:
            return 400, {"errors": [{"message": str(error)}], "warnings": []}, {}
        return {"errors": [], "warnings": []}

    def info(self, name: str, revision: str = "main") -> Any:
        repo = self.repo(name)
        sha = self.revision(repo, revision)
        files = [self.described("rfilename", path, file) for path, file in repo.commits[sha].files.items()]
        return {
            "_id": name,
            "id": name,
            "modelId": name,
            "sha": sha,
            "private": repo.private,
            "gated": "auto" if repo.gated else False,
            "tags": [],
            "siblings": files if self.query.get("blobs") else [{"rfilename": f["rfilename"]} for f in files],
        }

    def tree(self, name: str, revision: str) -> Any:
        repo = self.repo(name)
        commit = repo.commits[self.revision(repo, revision)]
        return [{"type": "file", **self.described("path", path, file)} for path, file in commit.files.items()]

    def described(self, key: str, path: str, file: File) -> dict[str, Any]:
        entry: dict[str, Any] = {key: path, "size": file.length, "oid": file.oid, "blobId": file.oid}
        if file.sha256:
            entry["lfs"] = {"oid": file.sha256, "sha256": file.sha256, "size": file.size, "pointerSize": 134}
        return entry

    def refs(self, name: str) -> Any:
        repo = self.repo(name)

        def under(prefix: str) -> list[dict[str, str]]:
            found = [(ref, sha) for ref, sha in repo.refs.items() if ref.startswith(prefix)]
            return [{"name": ref.removeprefix(prefix), "ref": ref, "targetCommit": sha} for ref, sha in found]

        answer: dict[str, Any] = {"branches": under("refs/heads/"), "converts": [], "tags": under("refs/tags/")}
        if self.query.get("include_prs"):
            answer["pullRequests"] = under("refs/pr/")
        return answer

    def preupload(self, name: str, revision: str) -> Any:
        repo = self.repo(name, write="create_pr" not in self.query)
        present = repo.commits[self.revision(repo, revision)].files
        files = []
        for wanted in self.json()["files"]:
            path = wanted["path"]
            lfs = path.endswith((".safetensors", ".png", ".jpg", ".webp")) and wanted["size"] > 0
            answer = {"path": path, "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
            if path in present:
                answer["oid"] = present[path].etag
            files.append(answer)
        return {"files": files}

    def lfs_batch(self, name: str) -> Any:
        self.repo(name)
        objects = []
        for wanted in self.json()["objects"]:
            oid, size = wanted["oid"], wanted["size"]
            entry: dict[str, Any] = {"oid": oid, "size": size}
            if oid not in self.hub.blobs:
                upload = {"href": f"{self.hub.url}/lfs/{oid}/{size}?sig=1"}
                entry["actions"] = {"upload": upload, "verify": {"href": f"{self.hub.url}/lfs-verify/{name}"}}
            objects.append(entry)
        return {"transfer": "basic", "objects": objects, "hash_algo": "sha256"}

    def lfs_put(self, oid: str, size: str) -> Any:
        if len(self.body) != int(size) or hashlib.sha256(self.body).hexdigest() != oid:
            raise Refusal(400, "the content is not what was announced")
        self.hub.blobs[oid] = self.body
        return {}

    def lfs_verify(self, name: str) -> Any:
        if self.json()["oid"] not in self.hub.blobs:
            raise Refusal(404, "object not found")
        return {}

    def commit(self, name: str, revision: str) -> Any:
        as_pr = "create_pr" in self.query
        repo = self.repo(name, write=not as_pr)
        ref = revision if revision.startswith("refs/") else f"refs/heads/{revision}"
        parent = self.revision(repo, revision)
        lines = [json.loads(line) for line in self.body.splitlines()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        if header.get("parentCommit") and header["parentCommit"] != parent and not as_pr:
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        files = dict(repo.commits[parent].files)
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = File(base64.b64decode(value["content"]))
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.uploaded(value["oid"], value["size"])
            elif line["key"] == "deletedFile":
                files.pop(value["path"])
        commit = Commit(files, parent, header["summary"])
        if as_pr:
            number = 1 + sum(r.startswith("refs/pr/") for r in repo.refs)
            repo.add(f"refs/pr/{number}", commit)
            extra = {"pullRequestUrl": f"{self.hub.url}/{name}/discussions/{number}"}
        else:
            repo.add(ref, commit)
            extra = {}
        url = f"{self.hub.url}/{name}/commit/{commit.sha}"
        return {"success": True, "commitOid": commit.sha, "commitUrl": url, "hookOutput": "", **extra}

    def uploaded(self, sha256: str, size: int) -> File:
        """An object that was uploaded before, by LFS or into Xet's store."""
        if sha256 not in self.hub.blobs:
            self.hub.read_shards()
            if sha256 not in self.hub.xet_hashes:
                raise Refusal(400, f"object {sha256} was not uploaded")
        return File(self.hub.blobs.get(sha256, b""), sha256, size)

    def tag(self, name: str, revision: str) -> Any:
        repo, tag = self.repo(name, write=True), self.json()["tag"]
        if f"refs/tags/{tag}" in repo.refs:
            raise Refusal(409, f"Tag {tag} already exists")
        repo.refs[f"refs/tags/{tag}"] = self.revision(repo, revision)
        return {}

    def branch(self, name: str, branch: str) -> Any:
        repo = self.repo(name, write=True)
        if f"refs/heads/{branch}" in repo.refs:
            raise Refusal(409, f"Reference already exists: {branch}")
        start = json.loads(self.body or b"{}").get("startingPoint", "main")
        repo.refs[f"refs/heads/{branch}"] = self.revision(repo, start)
        return {}

    def resolve(self, name: str, revision: str, path: str) -> Any:
        repo = self.repo(name, content=True)
        sha = self.revision(repo, revision)
        file = repo.commits[sha].files.get(path)
        if file is None:
            raise Refusal(404, "Entry not found", "EntryNotFound", **{"X-Repo-Commit": sha})
        common = {"X-Repo-Commit": sha, "ETag": f'"{file.etag}"', "Accept-Ranges": "bytes"}
        if not file.sha256:
            return 200, file.data, common
        linked = {"X-Linked-Size": str(file.size), "X-Linked-Etag": f'"{file.etag}"'}
        if file.sha256 in self.hub.xet_hashes:
            route = f"{self.hub.url}/api/models/{name}/xet-read-token/{sha}"
            linked |= {"X-Xet-Hash": self.hub.xet_hashes[file.sha256], "Link": f'<{route}>; rel="xet-auth"'}
        location = f"http://localhost:{self.hub.port}/cdn/{file.sha256}?sig=1"
        return 302, b"", {**common, **linked, "Location": location}

    def dataset(self, name: str) -> Any:
        if name not in self.hub.datasets:
            raise Refusal(404, "Repository not found", "RepoNotFound")
        return {"_id": name, "id": name, "sha": "d" * 40, "tags": self.hub.datasets[name][0], "siblings": []}

    def eval_yaml(self, name: str) -> Any:
        data = self.hub.datasets[name][1]
        return 200, data, {"X-Repo-Commit": "d" * 40, "ETag": f'"{git_sha1(data)}"'}

    def cdn(self, oid: str) -> Any:
        self.hub.authorized_cdn |= "Authorization" in self.headers
        data = self.hub.blobs[oid]
        headers = {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not wanted:
            return 200, data, headers
        start, end = int(wanted[1]), int(wanted[2] or len(data) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
        return 206, data[start : end + 1], headers

    def xet_token(self, name: str, kind: str, revision: str) -> Any:
        self.repo(name, write=kind == "write", content=True)
        if self.hub.xet is None:
            raise Refusal(404, "this hub has no Xet storage")
        url = f"local://{self.hub.xet}"
        headers = {"X-Xet-Cas-Url": url, "X-Xet-Access-Token": "x", "X-Xet-Token-Expiration": "4000000000"}
        return 200, {"casUrl": url, "accessToken": "x", "exp": 4000000000}, headers


NAME = "([^/]+/[^/]+)"
SPACE = "(spaces/[^/]+/[^/]+)"
ROUTES: list[tuple[str, str, Callable[..., Any]]] = [
    ("GET", "/api/whoami-v2", Handler.whoami),
    ("POST", "/api/repos/create", Handler.create_repo),
    ("POST", "/api/validate-yaml", Handler.validate_yaml),
    ("GET", f"/api/models/{NAME}", Handler.info),
    ("GET", f"/api/models/{NAME}/revision/([^/]+)", Handler.info),
    ("GET", f"/api/models/{NAME}/tree/([^/]+)", Handler.tree),
    ("GET", f"/api/models/{NAME}/refs", Handler.refs),
    ("POST", f"/api/models/{NAME}/preupload/([^/]+)", Handler.preupload),
    ("POST", f"/api/models/{NAME}/commit/([^/]+)", Handler.commit),
    ("POST", f"/api/models/{NAME}/tag/([^/]+)", Handler.tag),
    ("POST", f"/api/models/{NAME}/branch/([^/]+)", Handler.branch),
    ("GET", f"/api/models/{NAME}/xet-(read|write)-token/([^/]+)", Handler.xet_token),
    ("POST", f"/{NAME}\\.git/info/lfs/objects/batch", Handler.lfs_batch),
    ("PUT", "/lfs/([0-9a-f]{64})/([0-9]+)", Handler.lfs_put),
    ("POST", f"/lfs-verify/{NAME}", Handler.lfs_verify),
    ("GET", f"/api/datasets/{NAME}", Handler.dataset),
    ("GET", f"/datasets/{NAME}/resolve/main/eval.yaml", Handler.eval_yaml),
    ("GET", f"/{NAME}/resolve/([^/]+)/(.+)", Handler.resolve),
    ("GET", "/cdn/([0-9a-f]{64})", Handler.cdn),
    ("GET", f"/api/{SPACE}(?:/revision/main)?", Handler.info),
    ("POST", f"/api/{SPACE}/preupload/([^/]+)", Handler.preupload),
    ("POST", f"/api/{SPACE}/commit/([^/]+)", Handler.commit),
    ("GET", f"/{SPACE}/resolve/([^/]+)/(.+)", Handler.resolve),
]


class Server(ThreadingHTTPServer):
    """A thread a connection."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client may leave in the middle of an answer, which is no news; all else is printed."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def serve(xet: Path | None = None) -> Iterator[Hub]:
    """Run a hub on a free port until the block ends."""
    hub = Hub(xet)
    server = Server(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    hub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
