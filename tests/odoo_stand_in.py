#!/usr/bin/env python3
"""Stands in for Odoo where a test needs one that answers, and the real one is not there: takes Odoo's arguments, logs as
Odoo logs, and serves a few pages as Odoo serves them. It reads one thing of its database: database.uuid."""
import argparse
import configparser
import glob
import http.server
import json
import os
import subprocess
import sys
import time

parser = argparse.ArgumentParser(allow_abbrev=False)
parser.add_argument("--config")
parser.add_argument("--database")
parser.add_argument("--http-port", type=int)
told, _ = parser.parse_known_args()
settings = configparser.RawConfigParser()
settings.read(told.config)
socket = settings["options"]["db_host"]
LOGIN = '<html><form><input name="csrf_token"/></form><link href="/web/assets/1/a.css"/></html>'


def log(level, logger, message):
    now = time.strftime("%Y-%m-%d %H:%M:%S,000")
    print(f"{now} {os.getpid()} {level} {told.database} {logger}: {message}", flush=True)


def ask(sql):
    psql = sorted(glob.glob("/usr/lib/postgresql/*/bin/psql"))[-1]
    command = [psql, "-h", socket, "-U", "lifeboat_odoo", "-d", told.database, "-XAtc", sql]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def answer(self, status, body="", kind="text/html; charset=utf-8", headers=()):
        content = body.encode()
        self.send_response(status)
        for name, value in (("Content-Type", kind), ("Content-Length", str(len(content))), *headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self):
        is_in = "session_id=in" in (self.headers.get("Cookie") or "")
        path, _, query = self.path.partition("?")
        if path == "/web/login":
            self.answer(200, LOGIN)
        elif path.startswith("/web/assets/"):
            self.answer(200, "body {}", "text/css")
        elif path in ("/web", "/odoo") and is_in:
            self.answer(200, "<script>odoo.session_info = {}</script>")
        elif path == "/shop":
            self.answer(200, f"<h1>Shop</h1><p>{query}</p>")
        elif path == "/my/orders" and is_in:
            self.answer(200, "<h1>Your orders</h1>")
        elif path == "/my/orders":
            self.answer(303, headers=[("Location", "/web/login?redirect=/my/orders")])
        elif path == "/shop/price.json":
            self.answer(200, '{"price": 7}', "application/json")
        elif path == "/shop/hangs":
            time.sleep(600)
        else:
            self.answer(404, "<h1>Not Found</h1>\n<p>No such page</p>")

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/web/session/authenticate":
            result = {"uid": 2, "db": body["params"]["db"], "server_version": "19.0"}
            headers = [("Set-Cookie", "session_id=in; Path=/; HttpOnly")]
        else:
            result, headers = ask("SELECT value FROM ir_config_parameter WHERE key = 'database.uuid'"), []
        self.answer(200, json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}), "application/json", headers)


server = http.server.ThreadingHTTPServer(("127.0.0.1", told.http_port), Handler)
server.daemon_threads = True
log("INFO", "odoo", "Odoo version 19.0")
installed = ask("SELECT count(*) FROM ir_module_module WHERE state = 'installed'")
log("INFO", "odoo.modules.loading", f"{installed} modules loaded in 0.01s, 0 queries (+0 extra)")
log("INFO", "odoo.registry", "Registry loaded in 0.010s")
try:
    server.serve_forever()
except KeyboardInterrupt:
    sys.exit(0)
