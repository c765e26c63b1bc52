// A client as they are written for Node: keys, tokens and proofs by jose.
//
//     client.cjs keys DIR          makes keys, and writes what the edge needs of them
//     client.cjs ask DIR PORT      asks the edge, and prints what it answered, as JSON

const crypto = require("node:crypto");
const fs = require("node:fs");
const https = require("node:https");
const path = require("node:path");
const jose = require("jose");

const HOST = "api.example.com";

async function keys(folder) {
  const make = async (name, alg) => {
    const pair = await jose.generateKeyPair(alg, { extractable: true });
    const jwk = await jose.exportJWK(pair.privateKey);
    fs.writeFileSync(path.join(folder, `${name}.jwk`), JSON.stringify(jwk));
    return jose.exportJWK(pair.publicKey);
  };
  const issuer = [];
  for (const alg of ["ES256", "RS256"]) {
    issuer.push({ ...(await make(alg, alg)), kid: alg, alg, use: "sig" });
  }
  await make("client-ES256", "ES256");
  await make("client-EdDSA", "EdDSA");
  fs.writeFileSync(path.join(folder, "jwks.json"), JSON.stringify({ keys: issuer }));
}

function read(folder, name, alg) {
  return jose.importJWK(JSON.parse(fs.readFileSync(path.join(folder, `${name}.jwk`))), alg);
}

function request(folder, port, headers) {
  const options = {
    host: "127.0.0.1",
    port,
    servername: HOST,
    ca: fs.readFileSync(path.join(folder, "ca.pem")),
    path: "/api/x?page=2",
    headers: { Host: `${HOST}:${port}`, ...headers },
    agent: false,
  };
  return new Promise((resolve, reject) => {
    const asking = https.get(options, (response) => {
      let text = "";
      response.on("data", (piece) => (text += piece));
      response.on("end", () => {
        let code = null;
        try {
          code = JSON.parse(text).code ?? null;
        } catch {}
        resolve([response.statusCode, code, response.headers["dpop-nonce"]]);
      });
    });
    asking.on("error", reject);
  });
}

async function dpop(folder, port, issuer, alg) {
  const key = await read(folder, `client-${alg}`, alg);
  const { d, ...jwk } = JSON.parse(fs.readFileSync(path.join(folder, `client-${alg}.jwk`)));
  const jkt = await jose.calculateJwkThumbprint(jwk);
  const mint = (confirmation) =>
    new jose.SignJWT({ scope: "read", ...confirmation })
      .setProtectedHeader({ alg: issuer, kid: issuer, typ: "at+jwt" })
      .setIssuer("https://id.example.com/")
      .setAudience("api")
      .setSubject("subject-1")
      .setIssuedAt()
      .setExpirationTime("5m");
  const signer = await read(folder, issuer, issuer);
  const token = await mint({ cnf: { jkt } }).sign(signer);
  const bearer = await mint({}).sign(signer);
  const ath = crypto.createHash("sha256").update(token).digest("base64url");
  const proof = (nonce) =>
    new jose.SignJWT({ htm: "GET", htu: `https://${HOST}:${port}/api/x`, ath, ...(nonce && { nonce }) })
      .setProtectedHeader({ alg, typ: "dpop+jwt", jwk })
      .setJti(crypto.randomUUID())
      .setIssuedAt()
      .sign(key);
  const ask = (scheme, token, proof) =>
    request(folder, port, { Authorization: `${scheme} ${token}`, ...(proof && { DPoP: proof }) });
  const first = await ask("DPoP", token, await proof());
  const good = await proof(first[2]);
  return {
    bearer: (await ask("Bearer", bearer)).slice(0, 2),
    first: first.slice(0, 2),
    "with nonce": (await ask("DPoP", token, good)).slice(0, 2),
    again: (await ask("DPoP", token, good)).slice(0, 2),
    "as bearer": (await ask("Bearer", token)).slice(0, 2),
    changed: (await ask("Bearer", bearer.slice(0, -8) + "AAAAAAAA")).slice(0, 2),
  };
}

async function main() {
  const [what, folder, port] = process.argv.slice(2);
  if (what === "keys") {
    return keys(folder);
  }
  const answers = {};
  for (const [issuer, alg] of [
    ["ES256", "ES256"],
    ["RS256", "EdDSA"],
  ]) {
    answers[`${issuer} ${alg}`] = await dpop(folder, port, issuer, alg);
  }
  console.log(JSON.stringify(answers));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
