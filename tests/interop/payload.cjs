// An app's side of encrypted bodies: JWE by jose, the layout of apps by Node's own primitives.
//
//     payload.cjs seal DIR     seals to the keys in DIR/keys.json, keeps its own in DIR/state.json, and prints what it would send
//     payload.cjs open DIR     opens what is in DIR/answers.json, and prints it
//     payload.cjs ask DIR PORT asks the edge, for its keys first, and prints what became of each request

const crypto = require("node:crypto");
const fs = require("node:fs");
const https = require("node:https");
const path = require("node:path");
const jose = require("jose");

const [METHOD, PATH] = ["POST", "/v1/transfers"];
const [KIND, STATUS] = ["application/json", 201];
const [HOST, KEYS] = ["api.example.com", "/.well-known/enforcer/payload-keys"];
const BODY = Buffer.from('{"amount": "100 €"}');
const ECHO = 32;
const ALGS = ["ECDH-ES", "ECDH-ES+A256KW"];
const CURVES = { "P-256": ["ec", { namedCurve: "P-256" }], X25519: ["x25519", {}] };

const now = () => Math.floor(Date.now() / 1000);
const decode = (text) => Buffer.from(text, "base64url");

async function sealJwe(key, alg, method = METHOD, path = PATH, content = BODY, kind = KIND) {
  const app = crypto.generateKeyPairSync(...CURVES[key.crv]);
  const jti = crypto.randomBytes(16).toString("base64url");
  const rpk = app.publicKey.export({ format: "jwk" });
  const header = { alg, enc: "A256GCM", kid: key.kid, method, path, iat: now(), jti, rpk, ...(kind && { cty: kind }) };
  const to = await jose.importJWK(key, alg);
  const echo = crypto.randomBytes(ECHO);
  const body = await new jose.CompactEncrypt(Buffer.concat([echo, content])).setProtectedHeader(header).encrypt(to);
  const own = app.privateKey.export({ format: "jwk" });
  return [{ form: "jwe", body: Buffer.from(body).toString("base64") }, { own, kid: key.kid, jti, echo: echo.toString("base64url"), method, path }];
}

async function openJwe(state, answer) {
  const key = await jose.importJWK(state.own, "ECDH-ES");
  const options = { keyManagementAlgorithms: ALGS, contentEncryptionAlgorithms: ["A256GCM"] };
  const { plaintext, protectedHeader } = await jose.compactDecrypt(answer, key, options);
  // The header has what everybody could read in that of the request; this shows that the answer is the server's.
  const echo = plaintext.subarray(0, ECHO);
  if (echo.length !== ECHO || !crypto.timingSafeEqual(echo, decode(state.echo))) {
    throw new Error("made by somebody else");
  }
  if (["kid", "jti", "method", "path"].some((name) => protectedHeader[name] !== state[name])) {
    throw new Error(`an answer to another request: ${JSON.stringify(protectedHeader)}`);
  }
  return [protectedHeader.status, protectedHeader.cty ?? "", Buffer.from(plaintext.subarray(ECHO))];
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

function sealLayout(key, method = METHOD, path = PATH, content = BODY, kind = KIND) {
  const { privateKey, publicKey } = crypto.generateKeyPairSync(...CURVES[key.crv]);
  const [made, iv] = [now(), crypto.randomBytes(12)];
  const cipher = crypto.createCipheriv("aes-256-gcm", sessionKey(privateKey, key, "request", key.kid), iv);
  cipher.setAAD(Buffer.from([method, path, key.kid, String(made), kind].join("\n")));
  const sealed = Buffer.concat([iv, cipher.update(content), cipher.final(), cipher.getAuthTag()]);
  const body = Buffer.from(sealed.toString("base64")).toString("base64");
  const app = raw(publicKey.export({ format: "jwk" })).toString("base64url");
  const own = privateKey.export({ format: "jwk" });
  return [{ form: "layout", body, key: key.kid, app, made }, { own, server: key, iv: iv.toString("base64"), method, path }];
}

function openLayout({ own, server, iv, method, path }, answer, status = STATUS, kind = KIND) {
  const privateKey = crypto.createPrivateKey({ key: own, format: "jwk" });
  const bytes = Buffer.from(answer, "base64");
  const key = sessionKey(privateKey, server, "answer", server.kid);
  const cipher = crypto.createDecipheriv("aes-256-gcm", key, bytes.subarray(0, 12));
  cipher.setAAD(Buffer.from([method, path, server.kid, iv, String(status), kind].join("\n")));
  cipher.setAuthTag(bytes.subarray(-16));
  return [status, kind, Buffer.concat([cipher.update(bytes.subarray(12, -16)), cipher.final()])];
}

// One request over a connection of its own: status, fields, body.
function request(folder, port, method, target, headers, body) {
  const options = {
    host: "127.0.0.1",
    port,
    servername: HOST,
    ca: fs.readFileSync(path.join(folder, "ca.pem")),
    method,
    path: target,
    headers: { Host: `${HOST}:${port}`, ...headers },
    agent: false,
  };
  return new Promise((resolve, reject) => {
    const asking = https.request(options, (response) => {
      const pieces = [];
      response.on("data", (piece) => pieces.push(piece));
      response.on("end", () => resolve([response.statusCode, response.headers, Buffer.concat(pieces)]));
    });
    asking.on("error", reject);
    asking.end(body);
  });
}

// Encrypts a request, and opens its answer; the same once more, and one that was changed on the way.
async function exchange(folder, port, key, form, method, target, content) {
  const [name, alg] = form.split(" ");
  const kind = content.length ? KIND : "";
  const sealing =
    name === "jwe" ? sealJwe(key, alg, method, target, content, kind) : sealLayout(key, method, target, content, kind);
  const [sent, state] = await sealing;
  let data = Buffer.from(sent.body, "base64");
  const headers =
    name === "jwe"
      ? { "Content-Type": "application/jose" }
      : { "Content-Type": kind, "Payload-Key": key.kid, "Payload-Session": sent.app, "Payload-Time": String(sent.made) };
  if (!content.length) {
    delete headers["Content-Type"];
    headers["Payload-Sealed"] = data.toString();
    data = undefined;
  }
  const ask = (headers, data) => request(folder, port, method, target, headers, data);
  const code = ([status, , text]) => [status, method === "HEAD" ? "payload_refused" : JSON.parse(text).code];
  const [status, fields, body] = await ask(headers, data);
  const answer = (fields["payload-sealed"] ?? body).toString();
  const [inner, , plain] =
    name === "jwe" ? await openJwe(state, answer) : openLayout(state, answer, status, fields["content-type"] ?? "");
  if (inner !== status) {
    throw new Error(`${status} for ${inner}`);
  }
  const again = code(await ask(headers, data));
  const other = data ? [headers, Buffer.concat([data.subarray(0, -9), Buffer.from("AAAAAAAAA")])] : [{ ...headers, "Payload-Sealed": "A" }];
  return [status, plain.toString(), again, code(await ask(...other))];
}

async function ask(folder, port) {
  const [status, , keys] = await request(folder, port, "GET", KEYS, {});
  if (status !== 200) {
    throw new Error(`no keys: ${status}`);
  }
  const found = {};
  for (const key of JSON.parse(keys).keys) {
    for (const form of [...ALGS.map((alg) => `jwe ${alg}`), "layout"]) {
      found[`${form} ${key.crv} POST`] = await exchange(folder, port, key, form, "POST", "/sealed/echo", BODY);
      const nothing = Buffer.alloc(0);
      found[`${form} ${key.crv} GET`] = await exchange(folder, port, key, form, "GET", "/sealed/produce/3", nothing);
      found[`${form} ${key.crv} HEAD`] = await exchange(folder, port, key, form, "HEAD", "/sealed/what", nothing);
    }
  }
  return found;
}

async function main(verb, folder, port) {
  if (verb === "ask") {
    console.log(JSON.stringify(await ask(folder, port)));
    return;
  }
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
    if (plain[0] !== STATUS || plain[1] !== KIND) {
      throw new Error(`another answer: ${plain}`);
    }
    opened[name] = plain[2].toString();
  }
  console.log(JSON.stringify(opened));
}

main(...process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
