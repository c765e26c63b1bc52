// An app's side of encrypted bodies: JWE by jose, the layout of apps by Node's own primitives.
//
//     payload.cjs seal DIR     seals to the keys in DIR/keys.json, keeps its own in DIR/state.json, and prints what it would send
//     payload.cjs open DIR     opens what is in DIR/answers.json, and prints it

const crypto = require("node:crypto");
const fs = require("node:fs");
const path = require("node:path");
const jose = require("jose");

const [METHOD, PATH] = ["POST", "/v1/transfers"];
const BODY = Buffer.from('{"amount": "100 €"}');
const ALGS = ["ECDH-ES", "ECDH-ES+A256KW"];
const CURVES = { "P-256": ["ec", { namedCurve: "P-256" }], X25519: ["x25519", {}] };

const now = () => Math.floor(Date.now() / 1000);
const decode = (text) => Buffer.from(text, "base64url");

async function sealJwe(key, alg) {
  const app = crypto.generateKeyPairSync(...CURVES[key.crv]);
  const jti = crypto.randomBytes(16).toString("base64url");
  const rpk = app.publicKey.export({ format: "jwk" });
  const header = { alg, enc: "A256GCM", kid: key.kid, method: METHOD, path: PATH, iat: now(), jti, rpk };
  const to = await jose.importJWK(key, alg);
  const body = await new jose.CompactEncrypt(BODY).setProtectedHeader(header).encrypt(to);
  const own = app.privateKey.export({ format: "jwk" });
  return [{ form: "jwe", body: Buffer.from(body).toString("base64") }, { own, kid: key.kid, jti }];
}

async function openJwe(state, answer) {
  const key = await jose.importJWK(state.own, "ECDH-ES");
  const options = { keyManagementAlgorithms: ALGS, contentEncryptionAlgorithms: ["A256GCM"] };
  const { plaintext, protectedHeader } = await jose.compactDecrypt(answer, key, options);
  const { kid, jti, method, path } = protectedHeader;
  if (kid !== state.kid || jti !== state.jti || method !== METHOD || path !== PATH) {
    throw new Error(`an answer to another request: ${JSON.stringify(protectedHeader)}`);
  }
  return Buffer.from(plaintext);
}

// An uncompressed point, or a coordinate.
function raw(jwk) {
  const parts = jwk.crv === "P-256" ? [Buffer.from([4]), decode(jwk.x), decode(jwk.y)] : [decode(jwk.x)];
  return Buffer.concat(parts);
}

function sessionKey(own, server, direction, kid) {
  const app = raw(crypto.createPublicKey(own).export({ format: "jwk" }));
  const publicKey = crypto.createPublicKey({ key: server, format: "jwk" });
  const agreed = crypto.diffieHellman({ privateKey: own, publicKey });
  const info = ["enforcer payload 1", direction, kid].join("\n");
  return Buffer.from(crypto.hkdfSync("sha256", agreed, Buffer.concat([app, raw(server)]), info, 32));
}

function sealLayout(key) {
  const { privateKey, publicKey } = crypto.generateKeyPairSync(...CURVES[key.crv]);
  const [made, iv] = [now(), crypto.randomBytes(12)];
  const cipher = crypto.createCipheriv("aes-256-gcm", sessionKey(privateKey, key, "request", key.kid), iv);
  cipher.setAAD(Buffer.from([METHOD, PATH, key.kid, String(made)].join("\n")));
  const sealed = Buffer.concat([iv, cipher.update(BODY), cipher.final(), cipher.getAuthTag()]);
  const body = Buffer.from(sealed.toString("base64")).toString("base64");
  const app = raw(publicKey.export({ format: "jwk" })).toString("base64url");
  const own = privateKey.export({ format: "jwk" });
  return [{ form: "layout", body, key: key.kid, app, made }, { own, server: key, iv: iv.toString("base64") }];
}

function openLayout({ own, server, iv }, answer) {
  const privateKey = crypto.createPrivateKey({ key: own, format: "jwk" });
  const bytes = Buffer.from(answer, "base64");
  const key = sessionKey(privateKey, server, "answer", server.kid);
  const cipher = crypto.createDecipheriv("aes-256-gcm", key, bytes.subarray(0, 12));
  cipher.setAAD(Buffer.from([METHOD, PATH, server.kid, iv].join("\n")));
  cipher.setAuthTag(bytes.subarray(-16));
  return Buffer.concat([cipher.update(bytes.subarray(12, -16)), cipher.final()]);
}

async function main(verb, folder) {
  const file = (name) => path.join(folder, name);
  const read = (name) => JSON.parse(fs.readFileSync(file(name)));
  if (verb === "seal") {
    const [sent, state] = [{}, {}];
    for (const key of read("keys.json").keys) {
      for (const alg of ALGS) {
        const name = `jwe ${alg} ${key.crv}`;
        [sent[name], state[name]] = await sealJwe(key, alg);
      }
      const name = `layout ${key.crv}`;
      [sent[name], state[name]] = sealLayout(key);
    }
    fs.writeFileSync(file("state.json"), JSON.stringify(state));
    console.log(JSON.stringify(sent));
    return;
  }
  const [state, opened] = [read("state.json"), {}];
  for (const [name, text] of Object.entries(read("answers.json"))) {
    const answer = Buffer.from(text, "base64").toString();
    const plain = name.startsWith("jwe") ? await openJwe(state[name], answer) : openLayout(state[name], answer);
    opened[name] = plain.toString();
  }
  console.log(JSON.stringify(opened));
}

main(...process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
