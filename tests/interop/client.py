"""A client as they are written: tokens and proofs by PyJWT and joserfc, HTTP Message Signatures by http-message-signatures.

    client.py keys DIR          makes keys, and writes what the edge needs of them
    client.py ask DIR PORT      asks the edge, and prints what it answered, as JSON
"""

import hashlib
import http.client
import json
import pathlib
import secrets
import ssl
import sys
import time
import base64
import hmac

import jwt
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from http_message_signatures import HTTPMessageSigner, HTTPSignatureKeyResolver, algorithms
from joserfc.jwk import ECKey

HOST = "api.example.com"


def private_pem(key):
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_pem(key):
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def keys(folder):
    for name, key in {
        "issuer": ec.generate_private_key(ec.SECP256R1()),
        "client": ec.generate_private_key(ec.SECP256R1()),
        "p256": ec.generate_private_key(ec.SECP256R1()),
        "ed25519": ed25519.Ed25519PrivateKey.generate(),
    }.items():
        (folder / f"{name}.private").write_bytes(private_pem(key))
        (folder / f"{name}.key").write_bytes(public_pem(key))
    (folder / "secret.key").write_bytes(base64.b64encode(secrets.token_bytes(48)))
    jwk = ECKey.import_key((folder / "issuer.key").read_bytes()).as_dict(private=False)
    jwk.update(kid="issuer-1", alg="ES256", use="sig")
    (folder / "jwks.json").write_text(json.dumps({"keys": [jwk]}))


def request(folder, port, method, target, headers, body=None):
    """One request over a connection of its own: status, code, and the nonce that was told."""
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    connection = http.client.HTTPSConnection(HOST, port, context=context, timeout=15)
    # The name is the certificate's, the address is ours.
    import socket

    raw = socket.create_connection(("127.0.0.1", port), timeout=15)
    connection.sock = context.wrap_socket(raw, server_hostname=HOST)
    connection.request(method, target, body=body, headers=headers)
    response = connection.getresponse()
    text = response.read()
    try:
        code = json.loads(text).get("code")
    except ValueError:
        code = None
    answer = [response.status, code, response.headers.get("DPoP-Nonce")]
    connection.close()
    return answer


def dpop(folder, port):
    key = ECKey.import_key((folder / "client.private").read_bytes())
    public = {name: value for name, value in key.as_dict(private=False).items() if name in ("kty", "crv", "x", "y")}
    now = int(time.time())
    claims = {
        "iss": "https://id.example.com/", "aud": "api", "sub": "subject-1", "scope": "read",
        "iat": now, "exp": now + 300, "cnf": {"jkt": key.thumbprint()},
    }
    issuer = (folder / "issuer.private").read_bytes()
    token = jwt.encode(claims, issuer, algorithm="ES256", headers={"kid": "issuer-1", "typ": "at+jwt"})
    ath = base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).rstrip(b"=").decode()

    def proof(nonce=None):
        said = {
            "jti": secrets.token_urlsafe(16), "htm": "GET", "htu": f"https://{HOST}:{port}/api/x",
            "iat": int(time.time()), "ath": ath,
        }
        if nonce:
            said["nonce"] = nonce
        private = (folder / "client.private").read_bytes()
        return jwt.encode(said, private, algorithm="ES256", headers={"typ": "dpop+jwt", "jwk": public})

    def ask(scheme, *proofs):
        headers = {"Host": f"{HOST}:{port}", "Authorization": f"{scheme} {token}"}
        if proofs:
            headers["DPoP"] = proofs[0]
        return request(folder, port, "GET", "/api/x", headers)

    first = ask("DPoP", proof())
    good = proof(first[2])
    return {
        "first": first[:2],
        "with nonce": ask("DPoP", good)[:2],
        "again": ask("DPoP", good)[:2],
        "as bearer": ask("Bearer")[:2],
    }


class Keys(HTTPSignatureKeyResolver):
    def __init__(self, folder):
        self.folder = folder

    def resolve_private_key(self, key_id):
        if key_id == "secret":
            return base64.b64decode((self.folder / "secret.key").read_bytes())
        return (self.folder / f"{key_id}.private").read_bytes()

    def resolve_public_key(self, key_id):
        raise NotImplementedError


def messages(folder, port):
    answers = {}
    body = b'{"n": 1}'
    for key_id, algorithm in {
        "p256": algorithms.ECDSA_P256_SHA256,
        "ed25519": algorithms.ED25519,
        "secret": algorithms.HMAC_SHA256,
    }.items():
        message = requests.Request("POST", f"https://{HOST}:{port}/signed/echo?a=1&b=2", data=body).prepare()
        HTTPMessageSigner(signature_algorithm=algorithm, key_resolver=Keys(folder)).sign(
            message,
            key_id=key_id,
            nonce=secrets.token_urlsafe(24),
            label="sig",
            # It makes Content-Digest, too.
            body=body,
            covered_component_ids=("@method", "@authority", "@path", "@query", "content-digest"),
        )
        headers = dict(message.headers) | {"Host": f"{HOST}:{port}"}
        answers[key_id] = request(folder, port, "POST", "/signed/echo?a=1&b=2", headers, body)[:2]
        answers[f"{key_id} changed"] = request(folder, port, "POST", "/signed/echo?a=1&b=3", headers, body)[:2]
    return answers


def lines(folder, port):
    secret = base64.b64decode((folder / "secret.key").read_bytes())
    body = b'{"n": 1}'
    at, nonce, digest = str(int(time.time())), secrets.token_urlsafe(24), hashlib.sha256(body).hexdigest()
    canonical = "\n".join(["POST", "/lines/echo", "a=1", at, nonce, digest])
    headers = {
        "Host": f"{HOST}:{port}",
        "X-Signature-Key": "secret",
        "X-Signature-Timestamp": at,
        "X-Signature-Nonce": nonce,
        "X-Signature-Digest": digest,
        "X-Signature": hmac.new(secret, canonical.encode(), hashlib.sha256).hexdigest(),
    }
    return {
        "lines": request(folder, port, "POST", "/lines/echo?a=1", headers, body)[:2],
        "lines again": request(folder, port, "POST", "/lines/echo?a=1", headers, body)[:2],
    }


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[2])
    if sys.argv[1] == "keys":
        keys(folder)
    else:
        port = int(sys.argv[3])
        print(json.dumps(dpop(folder, port) | messages(folder, port) | lines(folder, port)))
