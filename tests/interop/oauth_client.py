"""An OAuth client as they are written: Authlib's session, with PKCE and refresh.

    oauth_client.py DIR PORT      asks the edge, and prints what it answered, as JSON
"""

import json
import pathlib
import secrets
import sys

import requests
import urllib3.util.connection
from authlib.integrations.requests_client import OAuth2Session

HOST = "api.example.com"
CALLBACK = "com.example.app:/callback"

# The name is the certificate's, the address is ours.
connect = urllib3.util.connection.create_connection
urllib3.util.connection.create_connection = lambda address, *rest, **named: connect(
    ("127.0.0.1", address[1]), *rest, **named
)


def main(folder, port):
    base = f"https://{HOST}:{port}"
    seen = []

    def session(**named):
        made = OAuth2Session("app", redirect_uri=CALLBACK, token_endpoint_auth_method="none", **named)
        made.verify, made.trust_env = str(folder / "ca.pem"), False

        def note(response, *_, **__):
            try:
                seen.append([response.status_code, response.json().get("code")])
            except ValueError:
                seen.append([response.status_code, None])

        made.hooks["response"].append(note)
        return made

    answers = {}

    def ask(name, call):
        seen.clear()
        said = None
        try:
            call()
        # What the library has understood of a refusal, if it has.
        except Exception as error:
            if not seen:
                raise
            said = getattr(error, "error", None)
        answers[name] = [*seen[-1], said]

    client = session(code_challenge_method="S256")
    verifier = secrets.token_urlsafe(48)
    url, state = client.create_authorization_url(f"{base}/authorize", code_verifier=verifier)
    plain = requests.Session()
    plain.verify, plain.trust_env = client.verify, False
    reply = plain.get(url)
    answers["authorize"] = [reply.status_code, None]
    bare, _ = session().create_authorization_url(f"{base}/authorize")
    reply = plain.get(bare)
    answers["without PKCE"] = [reply.status_code, reply.json().get("code")]
    back = f"{CALLBACK}?code=c0de&state={state}"
    token = f"{base}/token"
    # `next` tells the origin which refresh token to give.
    fetch = dict(authorization_response=back, state=state)
    ask("exchange", lambda: client.fetch_token(token, code_verifier=verifier, next="first", **fetch))
    ask("without verifier", lambda: session().fetch_token(token, **fetch))
    ask("refresh", lambda: client.refresh_token(token, refresh_token="first", next="second"))
    ask("the next", lambda: client.refresh_token(token, refresh_token="second", next="third"))
    ask("reused", lambda: client.refresh_token(token, refresh_token="first", next="x"))
    ask("its line", lambda: client.refresh_token(token, refresh_token="third", next="x"))
    ask("password", lambda: client.fetch_token(token, grant_type="password", username="u", password="p"))
    print(json.dumps(answers))


main(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
