#!/usr/bin/env python3
"""A second reader of repository format 1. It shares no code with Lifeboat and knows what docs/format.md says.

Needs Python 3.9, `cryptography` from PyPI, and the stock programs `age` and `zstd`. Verifies the ledger
of ENV (enrolments, signatures, numbers, links, checkpoint, subjects, WAL digests), lists its entries,
and writes into OUT what is asked for: --file from the newest base backup, --wal from the archive,
--attachment from the newest filestore capture, --config from the newest configuration export.
Exit code 0: all of that was verified and written. Anything wrong ends it with a message and 1.
"""

import argparse
import base64
import hashlib
import hmac
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

PACK, META, WAL, WAL_PIECE = 1, 2, 3, 4
TABLE = 0xFFFFFFFF

def must(holds, what):
    if not holds:
        sys.exit(f"format_reader: {what}")

def sha256(data):
    return hashlib.sha256(data).hexdigest()

def leaf(content):
    return hashlib.sha256(b"\x00" + content).digest()

def hkdf(key, salt, info):
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info.encode()).derive(key)

def stock(program, data, **more):
    run = subprocess.run(program, input=data, capture_output=True, **more)
    must(run.returncode == 0, f"{program[0]}: {run.stderr.decode().strip()}")
    return run.stdout

def age(identity, sealed):
    reading, writing = os.pipe()  # age reads identities from a file; a pipe keeps this one off the disk
    os.write(writing, identity)
    os.close(writing)
    opened = stock(["age", "--decrypt", "-i", f"/dev/fd/{reading}"], sealed, pass_fds=[reading])
    os.close(reading)
    return opened

class Repository:
    def __init__(self, root, identity):
        self.root = root
        descriptor = json.loads(self.get("lifeboat.json"))
        must(descriptor["format"] == 1, "another format")
        self.id, self.epoch = descriptor["repository"], descriptor["epoch"]
        lines = age(identity, self.get(f"keys/{self.epoch}.age")).decode().splitlines()
        (index_key,) = [line.split(" ")[2] for line in lines if line.startswith("# index-key ")]
        (self.identity,) = [line.encode() for line in lines if line.startswith("AGE-SECRET-KEY-1")]
        self.index_key = base64.b64decode(index_key)
        self.signers = {}
        list(map(self.trust, descriptor["signers"]))
        # Only the recovery key of the descriptor enrols hosts.
        recovery = [self.trust(s) for s in descriptor["signers"] if s["role"] == "recovery"]
        enrolments = [json.loads(p.read_bytes()) for p in (root / "keys").glob("signers/*.json")]
        for e in [e for e in enrolments if e["endorsed_by"] in recovery]:
            signer, when = e["signer"], e["enrolled_at"].replace("Z", "+00:00")
            text = f"lifeboat signer 1\n{self.id}\n{signer['key']}\n{signer['name']}\n{when}\n"
            self.check(e["endorsed_by"], text.encode(), bytes.fromhex(e["signature"]))
            self.trust(signer)

    def get(self, name):
        return (self.root / name).read_bytes()

    def trust(self, signer):
        raw = base64.b64decode(signer["key"])
        self.signers[sha256(raw)[:16]] = raw
        return sha256(raw)[:16]

    def check(self, key_id, message, signature):
        must(key_id in self.signers, f"signed by {key_id}, which is not trusted")
        try:
            Ed25519PublicKey.from_public_bytes(self.signers[key_id]).verify(signature, message)
        except InvalidSignature:
            must(False, f"a signature of {key_id} does not hold")

    def lines(self, environment, name):
        """The lines of a manifest or index."""
        data = self.get(f"{environment}/meta/{name}")
        must(sha256(data) == name, f"meta/{name} is damaged")
        return [next(iter(json.loads(line).items())) for line in Object(self, META, data).whole().splitlines()]

class Object:
    def __init__(self, repository, kind, data):
        must(data[:8] == b"LIFEBOAT" and data[-8:] == b"LIFEBEND", "magic")
        version, found, method, zero, epoch, key_len = struct.unpack("<BBBBIH", data[8:18])
        must((version, found, method, zero) == (1, kind, 2 if kind == META else 1, 0), "header")
        must(epoch == repository.epoch, f"epoch {epoch}")
        self.data, self.start, self.index_key = data, 18 + key_len, repository.index_key
        block, self.header_hash = data[18 : self.start], hashlib.sha256(data[: self.start]).digest()
        wrapped = kind != META
        self.key = AESGCM(age(repository.identity, block) if wrapped else hkdf(self.index_key, block, "lifeboat/1/meta"))
        table_len, self.summary_len, self.mac = struct.unpack("<II32s", data[-48:-8])
        end = len(data) - 48 - self.summary_len - table_len
        table = self.open(TABLE, 0, table_len - 16, data[end : end + table_len])
        self.frames, at = [], self.start
        for entry in struct.iter_unpack("<IIB", table):  # stored length, plaintext length, coding
            self.frames.append((at, *entry))
            at += entry[0]
        must(at == end, "the frames do not fill the object")

    def open(self, number, coding, plain_len, sealed):
        aad = self.header_hash + struct.pack("<IBI", number, coding, plain_len)
        return self.key.decrypt(bytes(8) + struct.pack(">I", number), sealed, aad)

    def frame(self, number):
        at, stored_len, plain_len, coding = self.frames[number]
        plain = self.open(number, coding, plain_len, self.data[at : at + stored_len])
        plain = stock(["zstd", "-dcq"], plain) if coding == 1 else plain
        must(len(plain) == plain_len, f"frame {number} has another length")
        return plain

    def whole(self):
        return b"".join(self.frame(n) for n in range(len(self.frames)))

    def content(self):
        """The plaintext of a WAL object, held against the keyed digest in its tail."""
        plain, key = self.whole(), hkdf(self.index_key, b"", "lifeboat/1/content")
        must(hmac.digest(key, plain, "sha256") == self.mac, "the content MAC does not hold")
        return plain

    def summary(self):
        key = AESGCM(hkdf(self.index_key, self.header_hash, "lifeboat/1/summary"))
        sealed = self.data[-48 - self.summary_len : -48]
        return json.loads(key.decrypt(bytes(12), sealed, self.header_hash)) if sealed else None

class Packs:
    """Frames are numbered through all packs, in the order in which a manifest lists them."""
    def __init__(self, repository, environment, lines):
        self.repository, self.environment, self.opened, self.place = repository, environment, (None, None), []
        self.add(lines)

    def add(self, lines):
        self.place += [(info, n) for kind, info in lines if kind == "pack" for n in range(len(info["frames"]))]

    def frame(self, number):
        info, number = self.place[number]
        if self.opened[0] is not info:
            data = self.repository.get(f"{self.environment}/data/{info['sha256']}")
            must(sha256(data) == info["sha256"] and len(data) == info["size"], f"data/{info['sha256']} is damaged")
            pack = Object(self.repository, PACK, data)
            must((pack.start, [list(f[1:]) for f in pack.frames]) == (info["first"], info["frames"]), "frame table")
            self.opened = (info, pack)
        return self.opened[1].frame(number)

    def read(self, frame, offset, length):
        content = b""
        while len(content) < length:
            content += self.frame(frame)[offset : offset + length - len(content)]
            frame, offset = frame + 1, 0
        return content

def root(leaves):
    if len(leaves) < 2:
        return leaves[0] if leaves else hashlib.sha256(b"").digest()
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    return hashlib.sha256(b"\x01" + root(leaves[:split]) + root(leaves[split:])).digest()

class Gone:
    """What retention gave up: numbers of entries, and of segments by timeline."""
    def __init__(self):
        self.entries, self.wal = set(), {}

    def see(self, body):
        change = {"retire": set.update, "delete": set.update, "revive": set.difference_update}.get(body["kind"])
        if change:
            numbers = lambda ranges: [n for first, last in ranges for n in range(first, last + 1)]
            change(self.entries, numbers(body["gone"]["entries"]))
            for wal in body["gone"]["wal"]:
                change(self.wal.setdefault(wal["timeline"], set()), numbers(wal["segments"]))

def ledger(repository, environment):
    """All entries in order, each verified, but for those of backups that retention gave up."""
    entries, leaves, previous, subjects, gone = [], [], None, [], Gone()
    for number, path in enumerate(sorted((repository.root / environment / "ledger").glob("*.json")), start=1):
        must(path.name == f"{number:020}.json", f"ledger entry {number} is missing")
        data = path.read_bytes()
        envelope = json.loads(data)
        must(json.dumps(envelope, separators=(",", ":")).encode() + b"\n" == data, f"{path.name}: encoding")
        payload, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"]
        must(kind == "application/vnd.in-toto+json" and envelope["signatures"], f"{path.name}: type, signatures")
        for s in envelope["signatures"]:
            signed = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
            repository.check(s["keyid"], signed, base64.b64decode(s["sig"]))
        statement = json.loads(payload)
        entry = statement["predicate"]
        types = (statement["_type"], statement["predicateType"], entry["format"])
        must(types == ("https://in-toto.io/Statement/v1", "urn:lifeboat:ledger-entry:v1", 1), f"{path.name}: types")
        place = (entry["repository"], entry["environment"], entry["sequence"], entry["previous"])
        must(place == (repository.id, environment, number, previous), f"{path.name}: place and link")
        subjects.append(statement["subject"])
        gone.see(entry["body"])
        entries.append(entry)
        leaves.append(leaf(data))
        previous = sha256(data)
    for entry, about in zip(entries, subjects):
        for subject in about if entry["sequence"] not in gone.entries else []:
            if subject["name"] != f"{environment}/ledger/":  # the empty log, subject of a first entry about nothing
                must(sha256(repository.get(subject["name"])) == subject["digest"]["sha256"], subject["name"])
        if entry["body"]["kind"] == "wal_range":
            check_range(repository, environment, entry["body"], gone.wal)
    text, signature_line = repository.get(f"{environment}/ledger/checkpoint").decode().split("\n\n")
    origin, size, tree = text.split("\n")
    must(origin == f"lifeboat/{repository.id}/{environment}" and int(size) <= len(leaves), "checkpoint")
    must(base64.b64decode(tree) == root(leaves[: int(size)]), "the checkpoint is not this ledger's")
    note = base64.b64decode(signature_line.split(" ")[2])
    name = origin.encode() + b"\n\x01"
    by = [i for i, raw in repository.signers.items() if hashlib.sha256(name + raw).digest()[:4] == note[:4]]
    repository.check(by[0] if by else "nobody", text.encode() + b"\n", note[4:])
    return [entry for entry in entries if entry["sequence"] not in gone.entries]

def check_range(repository, environment, body, gone):
    (timeline, *first), (_, *last) = ([int(n[i : i + 8], 16) for i in (0, 8, 16)] for n in (body["first"], body["last"]))
    high, low = (int(half, 16) for half in body["end_lsn"].split("/"))
    size = ((high << 32 | low) - (last[0] << 32)) // (last[1] + 1)
    per_log, leaves = (1 << 32) // size, []
    numbers = range(first[0] * per_log + first[1], last[0] * per_log + last[1] + 1)
    if gone.get(timeline, set()).intersection(numbers):
        return  # the digest is over all of them
    for number in numbers:
        name = f"{timeline:08X}{number // per_log:08X}{number % per_log:08X}"
        data = repository.get(f"{environment}/wal/{timeline:08X}/{name}")
        leaves.append(leaf(f"{name} {len(data)} {sha256(data)}".encode()))
    must(len(leaves) == body["segments"] and root(leaves).hex() == body["digest"], f"WAL from {body['first']} on")

def newest(entries, kind):
    return next(e["body"] for e in reversed(entries) if e["body"]["kind"] == kind)

def cluster_file(repository, environment, entries, path):
    base = newest(entries, "base_backup")
    lines = repository.lines(environment, base["manifest"])
    must(lines[0][0] == "base" and lines[0][1]["id"] == base["id"], "not the manifest of this base backup")
    packs = Packs(repository, environment, lines)
    file = next(v for k, v in lines if k == "file" and v["path"] == path)
    content = bytearray(file["size"])
    for at, length, frame, offset in file["runs"]:
        content[at : at + length] = packs.read(frame, offset, length)
    must(len(content) == file["size"], "a run lies outside its file")
    return content

def wal_file(repository, environment, _, name):
    """A complete file, or else what the pieces of a segment give; its summary goes to the output."""
    path, content = f"{environment}/wal/{name[:8]}/{name}", b""
    if (repository.root / path).exists():
        stored = Object(repository, WAL, repository.get(path))
        print(name, json.dumps(stored.summary()))
        return stored.content()
    for piece in sorted((repository.root / environment / "wal-live" / name[:8] / name).iterdir()):
        start, end = map(int, piece.name.split("-"))
        if start <= len(content) < end:
            plain = Object(repository, WAL_PIECE, piece.read_bytes()).content()
            must(len(plain) == end - start, f"{piece.name} has another length")
            content += plain[len(content) - start :]
    return content

def attachment(repository, environment, entries, name):
    packs, place = Packs(repository, environment, []), None
    for kind, segment in repository.lines(environment, newest(entries, "filestore_capture")["index"]):
        if kind == "segment":
            lines, base = repository.lines(environment, segment["sha256"]), len(packs.place)
            packs.add(lines)
            for added, length, frame, offset, _, _ in (v for k, v in lines if k == "add"):
                if added == name and place is None:
                    place = (base + frame, offset, length)
    content = packs.read(*place)
    must(hashlib.sha1(content).hexdigest() == name.split("/")[1], f"{name} is not what its name says")
    return content

def configuration_file(repository, environment, entries, name):
    lines = repository.lines(environment, newest(entries, "configuration_export")["manifest"])
    file = next(v for k, v in lines if k == "file" and v["name"] == name)
    return Packs(repository, environment, lines).read(*file["at"], file["size"])

def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    list(map(arguments.add_argument, ("repository", "identity", "environment")))
    kinds = {"file": cluster_file, "wal": wal_file, "attachment": attachment, "config": configuration_file}
    for kind in kinds:
        arguments.add_argument(f"--{kind}", action="append", default=[])
    arguments.add_argument("--out", default=".")
    given = arguments.parse_args()
    repository = Repository(Path(given.repository), Path(given.identity).read_bytes())
    entries = ledger(repository, given.environment)
    for entry in entries:
        print(entry["sequence"], entry["recorded_at"], entry["body"]["kind"])
    for kind, read in kinds.items():
        for name in getattr(given, kind):
            path = Path(given.out, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(read(repository, given.environment, entries, name))

if __name__ == "__main__":
    main()
