"""A small OpenID provider over HTTP, for tests: authorisation code with PKCE, ES256. Python and cryptography.

usage: oidc_provider.py CLIENT_ID CLIENT_SECRET
Prints its issuer. Who signs in is said by the query of the authorisation request, `as`: a name, or a way to cheat.
"""

import base64
import hashlib
import json
import sys
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

CLIENT, SECRET = sys.argv[1:3]
KEYS = {"good": ec.generate_private_key(ec.SECP256R1()), "other": ec.generate_private_key(ec.SECP256R1())}
CODES = {}
GROUPS = {"olga": ["staff", "dba"], "nobody": ["staff"]}


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(claims, key, header):
    text = b64(json.dumps(header).encode()) + "." + b64(json.dumps(claims).encode())
    r, s = decode_dss_signature(key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
    return text + "." + b64(r.to_bytes(32, "big") + s.to_bytes(32, "big"))


def id_token(login):
    who, now = login["as"], int(time.time())
    claims = {
        "iss": ISSUER, "sub": who, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": login["nonce"],
        "preferred_username": who, "groups": GROUPS.get(who, ["dba"]),
    }
    header, key = {"alg": "ES256", "kid": "good", "typ": "JWT"}, KEYS["good"]
    if who == "wrong-nonce":
        claims["nonce"] = "another"
    elif who == "wrong-audience":
        claims["aud"] = "another"
    elif who == "several-audiences":
        claims.update(aud=[CLIENT, "another"], azp="another")
    elif who == "wrong-issuer":
        claims["iss"] = "https://another.example"
    elif who == "expired":
        claims["exp"] = now - 3600
    elif who == "not-yet":
        claims["nbf"] = now + 3600
    elif who == "other-key":
        key = KEYS["other"]
    elif who == "unknown-key":
        header["kid"], key = "never-seen", KEYS["other"]
    elif who == "no-name":
        del claims["preferred_username"]
    elif who == "unsigned":
        return b64(json.dumps({"alg": "none"}).encode()) + "." + b64(json.dumps(claims).encode()) + "."
    elif who == "shared-secret":
        # The classical confusion: the public key, which everybody has, used as a secret.
        import hmac
        text = b64(json.dumps({"alg": "HS256", "kid": "good"}).encode()) + "." + b64(json.dumps(claims).encode())
        return text + "." + b64(hmac.new(jwk()["x"].encode(), text.encode(), hashlib.sha256).digest())
    return signed(claims, key, header)


def jwk():
    numbers = KEYS["good"].public_key().public_numbers()
    return {"kty": "EC", "crv": "P-256", "kid": "good", "use": "sig", "alg": "ES256",
            "x": b64(numbers.x.to_bytes(32, "big")), "y": b64(numbers.y.to_bytes(32, "big"))}


class Provider(BaseHTTPRequestHandler):
    def answer(self, status, body, headers=()):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        url = urllib.parse.urlparse(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        if url.path == "/.well-known/openid-configuration":
            self.answer(200, {"issuer": ISSUER, "authorization_endpoint": ISSUER + "/authorize",
                              "token_endpoint": ISSUER + "/token", "jwks_uri": ISSUER + "/keys"})
        elif url.path == "/keys":
            self.answer(200, {"keys": [jwk()]})
        elif url.path == "/authorize":
            right = query.get("client_id") == CLIENT and query.get("response_type") == "code"
            right = right and query.get("code_challenge_method") == "S256" and "openid" in query.get("scope", "").split()
            if not right:
                return self.answer(400, {"error": "invalid_request"})
            code = b64(hashlib.sha256(repr((time.time(), query)).encode()).digest())
            CODES[code] = query
            back = query["redirect_uri"] + "?" + urllib.parse.urlencode({"code": code, "state": query["state"]})
            self.answer(302, {}, [("location", back)])
        else:
            self.answer(404, {})

    def do_POST(self):
        form = dict(urllib.parse.parse_qsl(self.rfile.read(int(self.headers["content-length"])).decode()))
        basic = "Basic " + base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        login = CODES.pop(form.get("code"), None)
        if self.headers.get("authorization") != basic:
            return self.answer(401, {"error": "invalid_client"})
        proven = login and b64(hashlib.sha256(form.get("code_verifier", "").encode()).digest()) == login["code_challenge"]
        if not proven or form.get("redirect_uri") != login["redirect_uri"]:
            return self.answer(400, {"error": "invalid_grant"})
        self.answer(200, {"access_token": "x", "token_type": "Bearer", "id_token": id_token(login)})

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
ISSUER = f"http://127.0.0.1:{server.server_port}"
print(ISSUER, flush=True)
server.serve_forever()
