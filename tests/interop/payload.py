"""An app's side of encrypted bodies: JWE by jwcrypto, HPKE and the layout of apps from the primitives of cryptography.

    payload.py seal DIR     seals to the keys in DIR/keys.json, keeps its own in DIR/state.json, and prints what it would send
    payload.py open DIR     opens what is in DIR/answers.json, and prints it
    payload.py ask DIR PORT asks the edge, for its keys first, and prints what became of each request
"""

import base64
import hmac
import http.client
import json
import os
import pathlib
import secrets
import socket
import ssl
import sys
import time

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from jwcrypto import jwe, jwk

METHOD, PATH, BODY = "POST", "/v1/transfers", '{"amount": "100 €"}'.encode()
KIND, STATUS = "application/json", 201
HOST, KEYS = "api.example.com", "/.well-known/enforcer/payload-keys"
JWE_ALGS = ["ECDH-ES", "ECDH-ES+A256KW", "A256GCM"]
ECHO = 32


def b64(data):
    return base64.b64encode(data).decode()


def b64url(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def unb64url(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class P256:
    name, size, kem = "P-256", 65, 0x10

    def generate(self):
        return ec.generate_private_key(ec.SECP256R1())

    def load(self, data):
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), data)

    def bytes(self, public):
        return public.public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        )

    def agree(self, own, other):
        return own.exchange(ec.ECDH(), other)

    def of_jwk(self, key):
        return b"\x04" + unb64url(key["x"]) + unb64url(key["y"])


class X25519:
    name, size, kem = "X25519", 32, 0x20

    def generate(self):
        return x25519.X25519PrivateKey.generate()

    def load(self, data):
        return x25519.X25519PublicKey.from_public_bytes(data)

    def bytes(self, public):
        return public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)

    def agree(self, own, other):
        return own.exchange(other)

    def of_jwk(self, key):
        return unb64url(key["x"])


CURVES = {curve.name: curve for curve in (P256(), X25519())}


def pem(key):
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def unpem(text):
    return serialization.load_pem_private_key(text.encode(), None)


def extract(salt, ikm):
    return hmac.digest(salt or bytes(32), ikm, "sha256")


def expand(secret, info, length):
    found, block, i = b"", b"", 1
    while len(found) < length:
        block = hmac.digest(secret, block + info + bytes([i]), "sha256")
        found, i = found + block, i + 1
    return found[:length]


def hpke_key(curve, shared_point, enc, recipient, info):
    """RFC 9180, sections 4.1 and 5.1: base mode, HKDF-SHA256, AES-256-GCM."""

    def l_extract(suite, salt, label, ikm):
        return extract(salt, b"HPKE-v1" + suite + label + ikm)

    def l_expand(suite, secret, label, more, length):
        return expand(secret, length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + more, length)

    kem = b"KEM" + curve.kem.to_bytes(2, "big")
    suite = b"HPKE" + b"".join(n.to_bytes(2, "big") for n in (curve.kem, 1, 2))
    prk = l_extract(kem, b"", b"eae_prk", shared_point)
    shared = l_expand(kem, prk, b"shared_secret", enc + recipient, 32)
    context = b"\0" + l_extract(suite, b"", b"psk_id_hash", b"") + l_extract(suite, b"", b"info_hash", info)
    secret = l_extract(suite, shared, b"secret", b"")
    return l_expand(suite, secret, b"key", context, 32), l_expand(suite, secret, b"base_nonce", context, 12)


def session_key(curve, own, server, direction, kid):
    app = curve.bytes(own.public_key())
    info = "\n".join(["enforcer payload 1", direction, kid]).encode()
    agreed = curve.agree(own, curve.load(server))
    return HKDF(hashes.SHA256(), 32, app + server, info).derive(agreed)


def seal_jwe(key, alg, method=METHOD, path=PATH, body=BODY, kind=KIND):
    app = jwk.JWK.generate(kty=key["kty"], crv=key["crv"])
    header = {
        "alg": alg,
        "enc": "A256GCM",
        "kid": key["kid"],
        "method": method,
        "path": path,
        "iat": int(time.time()),
        "jti": b64url(secrets.token_bytes(16)),
        "rpk": json.loads(app.export_public()),
    }
    if kind:
        header["cty"] = kind
    echo = secrets.token_bytes(ECHO)
    token = jwe.JWE(echo + body, protected=json.dumps(header), algs=JWE_ALGS)
    token.add_recipient(jwk.JWK(**key))
    sent = {"form": "jwe", "body": b64(token.serialize(compact=True).encode())}
    state = {"own": json.loads(app.export_private()), "kid": key["kid"], "jti": header["jti"]}
    return sent, {**state, "echo": b64url(echo), "method": method, "path": path}


def open_jwe(state, answer):
    token = jwe.JWE(algs=JWE_ALGS)
    token.deserialize(answer.decode(), key=jwk.JWK(**state["own"]))
    # The header has what everybody could read in that of the request; this shows that the answer is the server's.
    echo, plain = token.payload[:ECHO], token.payload[ECHO:]
    assert hmac.compare_digest(echo, unb64url(state["echo"])), "made by somebody else"
    header = token.jose_header
    expected = {name: state[name] for name in ("kid", "jti", "method", "path")}
    assert {name: header[name] for name in expected} == expected, header
    assert set(header) - {"cty"} == {"alg", "enc", "epk", "status", *expected}, header
    return header["status"], header.get("cty", ""), plain


def seal_hpke(key, method=METHOD, path=PATH, body=BODY, kind=KIND):
    curve = CURVES[key["crv"]]
    server, own, fresh = curve.of_jwk(key), curve.generate(), curve.generate()
    enc, once = curve.bytes(fresh.public_key()), secrets.token_bytes(16)
    agreed = curve.agree(fresh, curve.load(server))
    secret, iv = hpke_key(curve, agreed, enc, server, b"enforcer payload request 1")
    kid = key["kid"].encode()
    plain = int(time.time()).to_bytes(8, "big") + once + curve.bytes(own.public_key())
    plain += bytes([len(kind)]) + kind.encode() + body
    aad = "\n".join([method, path, key["kid"]]).encode()
    body = bytes([1, len(kid)]) + kid + enc + AESGCM(secret).encrypt(iv, plain, aad)
    state = {"own": pem(own), "kid": key["kid"], "once": b64url(once)}
    return {"form": "hpke", "body": b64(body)}, {**state, "method": method, "path": path}


def open_hpke(curve, state, answer):
    own = unpem(state["own"])
    assert answer[0] == 1
    enc, ciphertext = answer[1 : 1 + curve.size], answer[1 + curve.size :]
    agreed = curve.agree(own, curve.load(enc))
    recipient = curve.bytes(own.public_key())
    secret, iv = hpke_key(curve, agreed, enc, recipient, b"enforcer payload answer 1")
    aad = "\n".join([state[name] for name in ("method", "path", "kid", "once")]).encode()
    plain = AESGCM(secret).decrypt(iv, ciphertext, aad)
    end = 3 + plain[2]
    return int.from_bytes(plain[:2], "big"), plain[3:end].decode(), plain[end:]


def seal_layout(key, method=METHOD, path=PATH, body=BODY, kind=KIND):
    curve = CURVES[key["crv"]]
    server, own, made, iv = curve.of_jwk(key), curve.generate(), int(time.time()), os.urandom(12)
    secret = session_key(curve, own, server, "request", key["kid"])
    aad = "\n".join([method, path, key["kid"], str(made), kind]).encode()
    body = base64.b64encode(iv + AESGCM(secret).encrypt(iv, body, aad))
    app = b64url(curve.bytes(own.public_key()))
    sent = {"form": "layout", "body": b64(body), "key": key["kid"], "app": app, "made": made}
    state = {"own": pem(own), "server": b64(server), "kid": key["kid"], "iv": b64(iv)}
    return sent, {**state, "method": method, "path": path}


def open_layout(curve, state, answer, status=STATUS, kind=KIND):
    own, server = unpem(state["own"]), base64.b64decode(state["server"])
    secret = session_key(curve, own, server, "answer", state["kid"])
    bytes_ = base64.b64decode(answer, validate=True)
    named = [state[name] for name in ("method", "path", "kid", "iv")]
    aad = "\n".join([*named, str(status), kind]).encode()
    return status, kind, AESGCM(secret).decrypt(bytes_[:12], bytes_[12:], aad)


def request(folder, port, method, path, headers, body=None):
    """One request over a connection of its own: status, fields, body."""
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    connection = http.client.HTTPSConnection(HOST, port, context=context, timeout=15)
    # The name is the certificate's, the address is ours.
    raw = socket.create_connection(("127.0.0.1", port), timeout=15)
    connection.sock = context.wrap_socket(raw, server_hostname=HOST)
    connection.request(method, path, body=body, headers=headers)
    response = connection.getresponse()
    found = response.status, response.headers, response.read()
    connection.close()
    return found


def exchange(folder, port, key, form, method, path, body):
    """Encrypts a request, and opens its answer; the same once more, and one that was changed on the way."""
    kind, name, curve = KIND if body else "", form.split()[0], CURVES[key["crv"]]
    if name == "jwe":
        sent, state = seal_jwe(key, form.split()[1], method, path, body, kind)
    else:
        sent, state = {"hpke": seal_hpke, "layout": seal_layout}[name](key, method, path, body, kind)
    data = base64.b64decode(sent["body"])
    headers = {"jwe": {"Content-Type": "application/jose"}, "hpke": {"Content-Type": "application/vnd.enforcer.hpke"}}
    headers = headers.get(name) or {
        "Content-Type": kind,
        "Payload-Key": key["kid"],
        "Payload-Session": sent["app"],
        "Payload-Time": str(sent["made"]),
    }
    if not body:
        headers.pop("Content-Type")
        headers["Payload-Sealed"] = b64url(data) if name == "hpke" else data.decode()
        data = None

    def ask(headers, data):
        return request(folder, port, method, path, headers, data)

    def code(answer):
        return [answer[0], json.loads(answer[2])["code"]]

    status, fields, answer = ask(headers, data)
    in_field = fields.get("Payload-Sealed")
    if in_field:
        assert not answer
        answer = unb64url(in_field) if name == "hpke" else in_field.encode()
    if name == "jwe":
        inner, _, plain = open_jwe(state, answer)
    elif name == "hpke":
        inner, _, plain = open_hpke(curve, state, answer)
    else:
        assert fields["Payload-Key"] == key["kid"]
        inner, _, plain = open_layout(curve, state, answer, status, fields.get("Content-Type", ""))
    again = code(ask(headers, data)) if method != "HEAD" else [ask(headers, data)[0], "payload_refused"]
    changed = ask(headers, data[:-9] + b"AAAAAAAAA") if data else ask({**headers, "Payload-Sealed": "A"}, None)
    changed = code(changed) if method != "HEAD" else [changed[0], "payload_refused"]
    assert inner == status
    return [status, plain.decode(), again, changed]


def ask(folder, port):
    status, fields, keys = request(folder, port, "GET", KEYS, {})
    assert status == 200 and fields["Content-Type"] == "application/jwk-set+json"
    found = {}
    for key in json.loads(keys)["keys"]:
        for form in [*(f"jwe {alg}" for alg in JWE_ALGS[:2]), "hpke", "layout"]:
            asked = [("POST", "/sealed/echo", BODY), ("GET", "/sealed/produce/3", b""), ("HEAD", "/sealed/what", b"")]
            for method, path, body in asked:
                found[f"{form} {key['crv']} {method}"] = exchange(folder, port, key, form, method, path, body)
    return found


def main(verb, folder, port=None):
    folder = pathlib.Path(folder)
    if verb == "ask":
        print(json.dumps(ask(folder, int(port))))
        return
    if verb == "seal":
        sent, state = {}, {}
        for key in json.loads((folder / "keys.json").read_text())["keys"]:
            curve = key["crv"]
            for alg in JWE_ALGS[:2]:
                name = f"jwe {alg} {curve}"
                sent[name], state[name] = seal_jwe(key, alg)
            for form, seal in (("hpke", seal_hpke), ("layout", seal_layout)):
                name = f"{form} {curve}"
                sent[name], state[name] = seal(key)
        (folder / "state.json").write_text(json.dumps(state))
        print(json.dumps(sent))
        return
    state = json.loads((folder / "state.json").read_text())
    opened = {}
    for name, answer in json.loads((folder / "answers.json").read_text()).items():
        answer, form, curve = base64.b64decode(answer), name.split()[0], CURVES[name.split()[-1]]
        if form == "jwe":
            plain = open_jwe(state[name], answer)
        else:
            plain = {"hpke": open_hpke, "layout": open_layout}[form](curve, state[name], answer)
        assert plain[:2] == (STATUS, KIND), plain
        opened[name] = plain[2].decode()
    print(json.dumps(opened))


main(*sys.argv[1:])
