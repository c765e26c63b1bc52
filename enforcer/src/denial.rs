//! The one table of refusals: what a connection or a request was refused for.
//!
//! The HTTP answer, the access log, the metric label and the offence all read it. Variants are never renamed
//! lightly: `code` is what apps and operators match on.

/// Who has to change something for the next attempt to work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// Whoever sent it.
    Client,
    /// The server behind.
    Upstream,
    /// This daemon or its configuration.
    Us,
}

/// What all 401 answers say, so that they tell a guesser nothing beyond the code.
const UNAUTHORIZED: &str = "The request needs a valid access token.";

/// The same for requests that have to be signed.
const UNSIGNED: &str = "The request needs a valid signature.";

/// The same for requests of apps and devices that have to be shown to be genuine.
const UNATTESTED: &str = "The request needs proof of a genuine app on a genuine device.";

macro_rules! denials {
    ($($(#[doc = $doc:literal])+ $variant:ident = $code:literal, $status:literal, $blame:ident, $weight:literal, $message:expr;)+) => {
        /// Why a connection or a request was refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Denial { $($(#[doc = $doc])+ $variant,)+ }

        #[allow(clippy::wildcard_enum_match_arm, reason = "few have another name")]
        impl Denial {
            /// Every denial, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Stable name: the `code` of problem documents, and the label in logs and metrics.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)+ }
            }

            /// HTTP status; 0 where a connection ends before HTTP.
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)+ }
            }

            /// Whose fault it is.
            pub const fn blame(self) -> Blame {
                match self { $(Self::$variant => Blame::$blame,)+ }
            }

            /// What one occurrence adds to its source's ban score; 0: never leads to a ban.
            pub const fn weight(self) -> u32 {
                match self { $(Self::$variant => $weight,)+ }
            }

            /// What the client is told.
            pub const fn message(self) -> &'static str {
                match self { $(Self::$variant => $message,)+ }
            }

            /// One sentence for operators and the reference.
            pub const fn description(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc,)+).trim_ascii(),)+ }
            }

            /// What apps know it as, where that is another name than `code`: they show it, or hand it to their own handlers.
            pub const fn fault(self) -> Option<&'static str> {
                match self {
                    Self::DeviceIntegrityFailed => Some("INTEGRITY_VERIFICATION_FAILED"),
                    _ => None,
                }
            }

            /// What clients of a token endpoint know it as (RFC 6749 section 5.2, RFC 9449 section 5); `None` where nothing is wrong with
            /// what they asked for, and asking again later may help.
            pub const fn oauth_error(self) -> Option<&'static str> {
                match self {
                    Self::OauthRequest
                    | Self::TokenInQuery
                    | Self::RequestMalformed
                    | Self::BodyTooLarge
                    | Self::MethodNotAllowed
                    | Self::HeaderMissing => Some("invalid_request"),
                    Self::OauthRedirect => Some("invalid_client"),
                    Self::OauthGrant => Some("unsupported_grant_type"),
                    // Only another login helps.
                    Self::OauthPkce | Self::OauthRefreshReused | Self::TokenRevoked | Self::DpopWrongKey => {
                        Some("invalid_grant")
                    }
                    Self::DpopNonce => Some("use_dpop_nonce"),
                    Self::DpopMissing
                    | Self::DpopMalformed
                    | Self::DpopAlgorithm
                    | Self::DpopKey
                    | Self::DpopBadSignature
                    | Self::DpopWrongRequest
                    | Self::DpopStale
                    | Self::DpopReplayed => Some("invalid_dpop_proof"),
                    _ => None,
                }
            }

            /// The denial with this `code`.
            pub fn from_code(code: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|denial| denial.code() == code)
            }
        }
    };
}

denials! {
    /// The TLS handshake failed: no common version or suite, or not TLS at all.
    TlsHandshake = "tls_handshake", 0, Client, 1, "";
    /// The TLS handshake did not finish in time.
    TlsTimeout = "tls_timeout", 0, Client, 1, "";
    /// The TLS handshake asked for a server name of no certificate, or for none, on a listener that refuses such.
    TlsUnknownName = "tls_unknown_name", 0, Client, 1, "";
    /// The TLS handshake asked for a server name that is refused, or for none of those that alone are served.
    TlsRefusedName = "tls_refused_name", 0, Client, 0, "";
    /// The ClientHello has a fingerprint that is refused.
    TlsRefusedFingerprint = "tls_refused_fingerprint", 0, Client, 0, "";
    /// The client showed no certificate where one is required, or one that is not accepted.
    TlsClientCertificate = "tls_client_certificate", 0, Client, 1, "";
    /// A load balancer that has to say whose connection it is, by the PROXY protocol, did not say it, or not in time.
    ProxyHeader = "proxy_header", 0, Us, 0, "";
    /// The source has as many connections open as it may.
    ConnectionLimit = "connection_limit", 0, Client, 0, "";
    /// The client is banned, and came all the same: through a load balancer or a proxy whose packets are not its own, or because the kernel
    /// part is off.
    Banned = "banned", 403, Client, 0, "This request is not permitted.";
    /// The request did not arrive in time, or its sender gave up in the middle of it.
    RequestTimeout = "request_timeout", 408, Client, 1, "The request took too long to arrive.";
    /// The request's body came too slowly, or stopped.
    BodyTimeout = "body_timeout", 408, Client, 1, "The request's body took too long to arrive.";
    /// The client did not take its answer in time; its connection was ended.
    AnswerUnread = "answer_unread", 0, Client, 1, "";
    /// The request cannot be read or contradicts itself.
    RequestMalformed = "request_malformed", 400, Client, 5, "The request cannot be understood.";
    /// The request says in more than one way how long it is, or in one that servers understand differently: what hides a
    /// request in another one.
    RequestAmbiguous = "request_ambiguous", 400, Client, 10, "The request's length can be read in more than one way.";
    /// The request's header fields exceed the size or count allowed.
    HeadersTooLarge = "headers_too_large", 431, Client, 5, "The request's header fields are too large.";
    /// The client sent more frames of HTTP/2 that carry neither a request nor a body than it may, or hid too much work in few bytes;
    /// the connection was ended with `ENHANCE_YOUR_CALM`.
    Http2Flood = "http2_flood", 0, Client, 25, "";
    /// The request's body exceeds the size allowed.
    BodyTooLarge = "body_too_large", 413, Client, 1, "The request's body is too large.";
    /// The request is for another host than the one that its TLS connection asked for.
    Misdirected = "misdirected", 421, Client, 1, "This connection is for another host.";
    /// The request came as early data (0-RTT), which can be replayed, and is not one that may: it has to come again once the handshake
    /// is complete (RFC 8470).
    TooEarly = "too_early", 425, Client, 0, "This request has to wait for the end of the handshake; send it again.";
    /// No route matches the request's path.
    RouteNotFound = "route_not_found", 404, Client, 1, "There is nothing at this address.";
    /// The route's path is known, but not for the request's method.
    MethodNotAllowed = "method_not_allowed", 405, Client, 1, "This method is not allowed here.";
    /// No route matches the request, and the configuration says that such requests are refused.
    RouteDenied = "route_denied", 403, Client, 5, "This request is not permitted.";
    /// The request exceeded a limit of its route.
    RateLimited = "rate_limited", 429, Client, 3, "Too many requests; try again later.";
    /// The limiter had no room for the source (fails closed).
    LimiterFull = "limiter_full", 503, Us, 0, "The service is overloaded; try again later.";
    /// The request lacks a field that its route requires. Something on the way may have taken it away, so nobody is banned for it.
    HeaderMissing = "header_missing", 400, Client, 0, "The request lacks a header field that the service needs.";
    /// The route needs a bearer token and the request carries none.
    TokenMissing = "token_missing", 401, Client, 5, UNAUTHORIZED;
    /// The request carries a token, or a client's secret, in its query, where logs and histories keep it.
    TokenInQuery = "token_in_query", 400, Client, 5, "Credentials do not belong into a request's address.";
    /// The token is not a JWS in compact form, or its header or claims are not what RFC 7515 and 7519 demand.
    TokenMalformed = "token_malformed", 401, Client, 10, UNAUTHORIZED;
    /// The token's algorithm is not allowed: `none`, HMAC, or one that the issuer does not use.
    TokenAlgorithm = "token_algorithm", 401, Client, 25, UNAUTHORIZED;
    /// The token's header carries a key, a key's address, or an extension that is never honoured, or says that the token is no
    /// access token.
    TokenHeader = "token_header", 401, Client, 25, UNAUTHORIZED;
    /// The token's issuer is not the one that the route trusts.
    TokenWrongIssuer = "token_wrong_issuer", 401, Client, 10, UNAUTHORIZED;
    /// The issuer has no key with the token's key id, type and algorithm.
    TokenUnknownKey = "token_unknown_key", 401, Client, 10, UNAUTHORIZED;
    /// The token's signature is wrong.
    TokenBadSignature = "token_bad_signature", 401, Client, 25, UNAUTHORIZED;
    /// The issuer's keys cannot be had, or not the token's: it could not be asked a moment ago.
    IssuerUnavailable = "issuer_unavailable", 503, Upstream, 0, "The access token cannot be verified now; try again later.";
    /// A required claim is missing, of the wrong type, or contradicts another; or the token lives longer than allowed.
    TokenClaims = "token_claims", 401, Client, 10, UNAUTHORIZED;
    /// The token is bound (`cnf`) to something that nobody here can ask its sender for.
    TokenConfirmation = "token_confirmation", 401, Client, 5, UNAUTHORIZED;
    /// The token has expired.
    TokenExpired = "token_expired", 401, Client, 1, UNAUTHORIZED;
    /// The token is not valid yet, or was issued in the future.
    TokenNotYetValid = "token_not_yet_valid", 401, Client, 1, UNAUTHORIZED;
    /// The token is meant for another audience.
    TokenWrongAudience = "token_wrong_audience", 401, Client, 5, UNAUTHORIZED;
    /// The token was taken back before its time: it, or its session, subject, device or key was revoked.
    TokenRevoked = "token_revoked", 401, Client, 2, UNAUTHORIZED;
    /// The issuer says that the token is not active: it has ended, was revoked, or never was one.
    TokenInactive = "token_inactive", 401, Client, 10, UNAUTHORIZED;
    /// The token is bound to a client certificate, and the connection has none: it may be stolen.
    CertificateMissing = "certificate_missing", 401, Client, 5, UNAUTHORIZED;
    /// The token is bound to another client certificate than the connection's: it may be stolen.
    CertificateMismatch = "certificate_mismatch", 401, Client, 10, UNAUTHORIZED;
    /// The route takes only tokens that are bound to a client certificate, and this one is not.
    CertificateUnbound = "certificate_unbound", 401, Client, 2, UNAUTHORIZED;
    /// The token is bound to a key, or the route takes only such, and the request brings no proof of having it: it may be stolen.
    DpopMissing = "dpop_missing", 401, Client, 5, UNAUTHORIZED;
    /// The token came with a proof of having a key, and is bound to none.
    DpopUnbound = "dpop_unbound", 401, Client, 5, UNAUTHORIZED;
    /// There are several proofs, or the one is too long, no JWS of the type `dpop+jwt`, or lacks what RFC 9449 demands of it.
    DpopMalformed = "dpop_malformed", 401, Client, 10, UNAUTHORIZED;
    /// The proof's algorithm is not allowed: `none`, HMAC, or one that is not in the list.
    DpopAlgorithm = "dpop_algorithm", 401, Client, 25, UNAUTHORIZED;
    /// The proof's key is private, of another type than its algorithm, or no good key.
    DpopKey = "dpop_key", 401, Client, 10, UNAUTHORIZED;
    /// The proof is made with another key than the one that the token is bound to: the token may be stolen.
    DpopWrongKey = "dpop_wrong_key", 401, Client, 10, UNAUTHORIZED;
    /// The proof's signature is wrong.
    DpopBadSignature = "dpop_bad_signature", 401, Client, 25, UNAUTHORIZED;
    /// The proof is for another method or another URL.
    DpopWrongRequest = "dpop_wrong_request", 401, Client, 5, UNAUTHORIZED;
    /// The proof is for another token, or does not say for which.
    DpopWrongToken = "dpop_wrong_token", 401, Client, 10, UNAUTHORIZED;
    /// The proof was made too long ago, or in the future.
    DpopStale = "dpop_stale", 401, Client, 1, UNAUTHORIZED;
    /// The proof needs the nonce that the answer gives.
    DpopNonce = "dpop_nonce", 401, Client, 0, UNAUTHORIZED;
    /// The proof was used before.
    DpopReplayed = "dpop_replayed", 401, Client, 10, UNAUTHORIZED;
    /// The route needs a signed request, and this one is not.
    SignatureMissing = "signature_missing", 401, Client, 5, UNSIGNED;
    /// The signature, or what goes with it, cannot be read, or could be read in two ways.
    SignatureMalformed = "signature_malformed", 401, Client, 10, UNSIGNED;
    /// The signature does not cover what it has to, or lacks its key id, its time or its nonce.
    SignatureIncomplete = "signature_incomplete", 401, Client, 5, UNSIGNED;
    /// No key of the route has the signature's key id.
    SignatureUnknownKey = "signature_unknown_key", 401, Client, 10, UNSIGNED;
    /// The signature names another algorithm than its key's.
    SignatureAlgorithm = "signature_algorithm", 401, Client, 25, UNSIGNED;
    /// The signature was made too long ago, or in the future, or has expired.
    SignatureStale = "signature_stale", 401, Client, 1, UNSIGNED;
    /// The signature is wrong.
    SignatureBad = "signature_bad", 401, Client, 25, UNSIGNED;
    /// The signature's nonce was used before.
    SignatureReplayed = "signature_replayed", 401, Client, 10, UNSIGNED;
    /// The digest of the body that was signed cannot be read, or is of no algorithm that counts.
    DigestMalformed = "digest_malformed", 400, Client, 5, "The digest of the request's body cannot be understood.";
    /// The body is not the one that was signed.
    DigestMismatch = "digest_mismatch", 400, Client, 10, "The request's body is not the one that was signed.";
    /// The use of a signature could not be written down (fails closed).
    ReplayStore = "replay_store", 503, Us, 0, "The service is overloaded; try again later.";
    /// There is no room to remember that a proof or a signature was used (fails closed).
    ReplayFull = "replay_full", 503, Us, 0, "The service is overloaded; try again later.";
    /// The body is not encrypted as the route asks for, cannot be opened, is too old, or was used before. Why is in the log and a metric
    /// alone: a client that could tell would have an oracle. Whether it weighs nothing (wrong clocks, no room of ours) shows nowhere.
    PayloadRefused = "payload_refused", 400, Client, 3, "The request's payload is refused.";
    /// The answer could not be encrypted: it is longer than allowed, or in a content coding.
    PayloadAnswer = "payload_answer", 502, Upstream, 0, "The service gave no valid answer.";
    /// A request of a device for a challenge, an enrolment or a session lacks something, has it twice, or asks for what is not offered.
    AttestationRequest = "attestation_request", 400, Client, 5, "The attestation request cannot be understood.";
    /// The challenge was not given out for this, for this device, or not since the daemon began.
    AttestationNonceUnknown = "attestation_nonce_unknown", 401, Client, 2, UNATTESTED;
    /// The challenge has run out.
    AttestationNonceStale = "attestation_nonce_stale", 401, Client, 1, UNATTESTED;
    /// The challenge was used before.
    AttestationNonceReused = "attestation_nonce_reused", 401, Client, 10, UNATTESTED;
    /// The session of the device is none, or not one that was made here since the daemon began, or with its secrets.
    AttestationSession = "attestation_session", 401, Client, 5, UNATTESTED;
    /// The device showed what it is longer ago than the route allows, or its session has ended.
    AttestationStale = "attestation_stale", 401, Client, 1, UNATTESTED;
    /// The device has not shown as much as the route asks for.
    AttestationLevel = "attestation_level", 403, Client, 2, "This device does not permit this request.";
    /// The route is not for devices of this platform.
    AttestationPlatform = "attestation_platform", 403, Client, 2, "This device does not permit this request.";
    /// The device has not enrolled here, was forgotten, or its app or environment is no longer accepted: it has to enrol anew.
    DeviceUnknown = "device_unknown", 401, Client, 1, UNATTESTED;
    /// The device was blocked, or its sessions were revoked.
    DeviceBlocked = "device_blocked", 403, Client, 2, "This device does not permit this request.";
    /// There is no room for another device (fails closed).
    DeviceRegistryFull = "device_registry_full", 503, Us, 0, "The service is overloaded; try again later.";
    /// The token is good, but lacks a scope that the route requires.
    ScopeMissing = "scope_missing", 403, Client, 2, "The access token does not permit this request.";
    /// The token is good, but a claim that the route requires is missing or has another value.
    ClaimMissing = "claim_missing", 403, Client, 2, "The access token does not permit this request.";
    /// The token is good, but its subject was not authenticated as well, or as recently, as the route requires.
    AuthenticationInsufficient = "insufficient_authentication", 401, Client, 1, UNAUTHORIZED;
    /// The request needs a device that has shown that it and its app are genuine, and this one has not.
    AttestationMissing = "attestation_missing", 401, Client, 2, UNATTESTED;
    /// The route asks for a token of Google Play that is made for the request, and it comes without one, or without its nonce.
    IntegrityTokenMissing = "integrity_token_missing", 401, Client, 1, UNATTESTED;
    /// The nonce of the request's integrity token was used before.
    IntegrityTokenReplayed = "integrity_token_replayed", 401, Client, 5, UNATTESTED;
    /// The attestation cannot be read, could be read in two ways, or is not of the form that its platform makes.
    AttestationMalformed = "attestation_malformed", 400, Client, 10, "The attestation cannot be understood.";
    /// The attestation's certificates do not lead to a root that is believed: no genuine device made it.
    AttestationChain = "attestation_chain", 403, Client, 25, UNATTESTED;
    /// A certificate of the attestation is not valid now: it is an old one, or the clock here is wrong.
    AttestationExpired = "attestation_expired", 403, Client, 2, UNATTESTED;
    /// The attestation was made for another challenge.
    AttestationNonce = "attestation_nonce", 403, Client, 5, UNATTESTED;
    /// The attestation is not of the key that it is sent for, or of one that is not taken: made elsewhere, for every app, or for something
    /// else than signatures.
    AttestationKey = "attestation_key", 403, Client, 10, UNATTESTED;
    /// The key was used before it was attested.
    AttestationUsed = "attestation_used", 403, Client, 5, UNATTESTED;
    /// The attestation is of the other environment: of development where production is expected, or the other way round.
    AttestationEnvironment = "attestation_environment", 403, Client, 2, UNATTESTED;
    /// What Apple gives beside an attestation, the receipt, is not signed by it, or belongs to another attestation.
    AttestationReceipt = "attestation_receipt", 403, Client, 10, UNATTESTED;
    /// The attestation or assertion is of an app that is none of those expected.
    AppNotRecognised = "app_not_recognised", 403, Client, 10, UNATTESTED;
    /// The app did not come to the device in a way that is accepted, or the system does not say how.
    AppDistribution = "app_distribution", 403, Client, 2, "This edition of the app is not accepted.";
    /// The app is older than the oldest version that is accepted.
    AppOutdated = "app_outdated", 403, Client, 0, "This version of the app is no longer accepted.";
    /// The assertion cannot be read, or could be read in two ways.
    AssertionMalformed = "assertion_malformed", 400, Client, 10, "The assertion cannot be understood.";
    /// The assertion was not made with the device's key, or for another request.
    AssertionBadSignature = "assertion_bad_signature", 401, Client, 10, UNATTESTED;
    /// The route asks for an assertion with each request, and this one has none, or not over what the route asks for.
    AssertionMissing = "assertion_missing", 401, Client, 2, UNATTESTED;
    /// The time that the assertion is over is too long ago, ahead, or from before the start of the daemon.
    AssertionStale = "assertion_stale", 401, Client, 1, UNATTESTED;
    /// The assertion's counter is not above the one that was last accepted: it was used before, or overtaken by a later one.
    AssertionCounterReplayed = "assertion_counter_replayed", 401, Client, 5, UNATTESTED;
    /// The device is not in the state that the route requires: it is opened, emulated, or keeps keys where they can be copied.
    DeviceIntegrityFailed = "device_integrity_failed", 403, Client, 2, UNATTESTED;
    /// The device lacks security updates that the route requires.
    DeviceOutdated = "device_outdated", 403, Client, 0, "The device needs an update of its system.";
    /// What Google says of the device's activity, of Play Protect or of other apps on it is refused by the route, or more keys were attested
    /// on it lately than the route takes (Apple's risk metric).
    DeviceRisk = "device_risk", 403, Client, 1, "Something on the device puts this request at risk.";
    /// The app's user has not got it from the store.
    AppUnlicensed = "app_unlicensed", 403, Client, 0, "The app has to be installed from its store.";
    /// The attestation was made too long ago, or in the future.
    AttestationOutdated = "attestation_outdated", 403, Client, 1, UNATTESTED;
    /// A certificate of the attestation was revoked: its key has leaked, or the device is not what it says.
    AttestationRevoked = "attestation_revoked", 403, Client, 5, UNATTESTED;
    /// Whoever could say something of the device cannot be asked now, or may not be asked more often (fails closed).
    AttestationUnavailable = "attestation_unavailable", 503, Upstream, 0, "The device cannot be verified now; try again later.";
    /// The GraphQL request, or its document, cannot be read, or could be read in two ways; or it names no document.
    GraphqlMalformed = "graphql_malformed", 400, Client, 5, "The GraphQL request cannot be understood.";
    /// The GraphQL request comes in a media type or a coding that is not read.
    GraphqlMediaType = "graphql_media_type", 415, Client, 1, "GraphQL requests come as application/json or application/graphql.";
    /// The GraphQL request or its document exceeds the size allowed.
    GraphqlTooLarge = "graphql_too_large", 413, Client, 2, "The GraphQL request is too large.";
    /// The document is nested deeper than allowed.
    GraphqlDepth = "graphql_depth", 400, Client, 5, "The GraphQL document is nested too deeply.";
    /// The document renames more fields than allowed.
    GraphqlAliases = "graphql_aliases", 400, Client, 5, "The GraphQL document has too many aliases.";
    /// The request holds more requests than allowed.
    GraphqlBatch = "graphql_batch", 400, Client, 2, "GraphQL requests have to come one by one.";
    /// The document asks for the schema, which is not shown.
    GraphqlIntrospection = "graphql_introspection", 403, Client, 2, "The schema is not shown.";
    /// More speaks for somebody who stands between the app and here, and reads what they say, than the route allows.
    ProxySuspected = "proxy_suspected", 403, Client, 0, "The connection seems to pass through a proxy that reads it; use another network.";
    /// A report that a pin did not fit is none: not JSON, a member twice, of the wrong kind or unknown, or without its host.
    PinReportMalformed = "pin_report_malformed", 400, Client, 0, "The report cannot be understood.";
    /// The operation is of a kind that is not allowed, or not one of those that are.
    GraphqlOperation = "graphql_operation", 403, Client, 2, "This operation is not permitted.";
    /// The request to the authorization server lacks a parameter, has one twice, or says elsewhere what it asks for.
    OauthRequest = "oauth_request", 400, Client, 5, "The authorization request cannot be understood.";
    /// The request to the authorization server names no client that is known, or a redirect URI that is not one of that client's.
    OauthRedirect = "oauth_redirect", 400, Client, 10, "The client or its redirect URI is not known.";
    /// The request to the authorization server asks for a grant that is not served: implicit, password, or another one.
    OauthGrant = "oauth_grant", 400, Client, 5, "This grant is not served.";
    /// The request to the authorization server does without PKCE (RFC 7636), does it by `plain`, or wrongly.
    OauthPkce = "oauth_pkce", 400, Client, 5, "Proof Key for Code Exchange by S256 is needed.";
    /// The refresh token was exchanged for another one before, or came of one that was seen twice: one of two who have it has stolen it.
    OauthRefreshReused = "oauth_refresh_reused", 400, Client, 5, "The refresh token was used before.";
    /// The refresh token is being exchanged for another one by a request that came before.
    OauthRefreshBusy = "oauth_refresh_busy", 429, Client, 0, "The refresh token is being exchanged; use what that brings.";
    /// The request asks for another protocol (extended CONNECT) where the route allows none of that name.
    UpgradeRefused = "upgrade_refused", 501, Client, 1, "This protocol is not spoken here.";
    /// No server of the upstream could be reached.
    UpstreamUnreachable = "upstream_unreachable", 502, Upstream, 0, "The service is not available.";
    /// The upstream broke the connection or the protocol before it answered.
    UpstreamProtocol = "upstream_protocol", 502, Upstream, 0, "The service gave no valid answer.";
    /// The upstream did not answer in time.
    UpstreamTimeout = "upstream_timeout", 504, Upstream, 0, "The service did not answer in time.";
    /// The time that the client, or the configuration, gave the whole request has passed.
    DeadlineExceeded = "deadline_exceeded", 504, Upstream, 0, "The request was not answered within its time.";
    /// Every server of the upstream has as many connections as it is given, and as many requests wait for one.
    UpstreamBusy = "upstream_busy", 503, Upstream, 0, "The service is overloaded; try again later.";
    /// The daemon serves as many connections or requests as it is allowed to.
    Overloaded = "overloaded", 503, Us, 0, "The service is overloaded; try again later.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_table_keeps_its_promises() {
        let mut codes = HashSet::new();
        for denial in Denial::ALL {
            assert!(codes.insert(denial.code()), "{} twice", denial.code());
            assert!(denial.weight() == 0 || denial.blame() == Blame::Client, "{}", denial.code());
            let general = [UNAUTHORIZED, UNSIGNED, UNATTESTED].contains(&denial.message());
            assert!(denial.status() != 401 || general, "{}", denial.code());
            assert_eq!(denial.status() == 0, denial.message().is_empty(), "{}", denial.code());
            assert_eq!(Denial::from_code(denial.code()), Some(*denial));
        }
    }
}
