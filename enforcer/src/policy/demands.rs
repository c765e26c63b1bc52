//! What a route demands of a good token, with the challenges for tokens that do not meet it. Made from the configuration;
//! `checks` holds claims against it.

use anyhow::{Context, Result, bail};
use http::{HeaderValue, Method};
use serde_json::Value;

use super::issuer::Issuer;
use crate::config;

/// Beyond being good.
#[derive(Debug)]
pub struct Demands {
    /// One of them must be there, if there are any.
    pub any_scope: Box<[Box<str>]>,
    /// Each of them must have one of its values.
    pub claims: Box<[Claim]>,
    /// One of them must be the token's, if there are any.
    pub acr: Box<[Box<str>]>,
    /// Seconds since its subject was authenticated, at most.
    pub max_auth_age: Option<u64>,
    /// `WWW-Authenticate` for a subject that must be authenticated better, or anew (RFC 9470 section 3).
    pub step_up_challenge: HeaderValue,
    /// The last one is for methods that have none of their own.
    scopes: Box<[(Option<Method>, Scopes)]>,
}

/// A claim and the values that it may have.
#[derive(Debug)]
pub struct Claim {
    /// Its name.
    pub name: Box<str>,
    /// At least one.
    pub values: Box<[Value]>,
}

/// What requests of one method need.
#[derive(Debug)]
pub struct Scopes {
    /// All of them.
    pub all: Box<[Box<str>]>,
    /// `WWW-Authenticate` for requests whose token lacks one.
    pub challenge: HeaderValue,
}

impl Demands {
    /// Checks the scopes' syntax and prepares the challenges, in the name of `issuer`.
    pub fn new(demands: &config::Demands, issuer: &Issuer) -> Result<Self> {
        let own = |(method, more): (&String, &Vec<String>)| -> Result<_> {
            let method: Method = method.parse().with_context(|| format!("`{method}` is no method"))?;
            Ok((Some(method), scopes(demands, more, issuer)?))
        };
        let mut by_method = demands.method_scopes.iter().map(own).collect::<Result<Vec<_>>>()?;
        by_method.push((None, scopes(demands, &[], issuer)?));
        let mut step_up = ", error=\"insufficient_user_authentication\", \
                           error_description=\"Authenticate better, or anew\""
            .to_owned();
        if !demands.acr.is_empty() {
            step_up += &format!(", acr_values=\"{}\"", demands.acr.join(" "));
        }
        let max_auth_age = demands.max_auth_age.map(|age| age.as_secs());
        if let Some(age) = max_auth_age {
            step_up += &format!(", max_age=\"{age}\"");
        }
        let claim = |(name, values): (&String, &Vec<Value>)| Claim {
            name: name.as_str().into(),
            values: values.as_slice().into(),
        };
        Ok(Self {
            any_scope: boxed(&demands.any_scope),
            claims: demands.claims.iter().map(claim).collect(),
            acr: boxed(&demands.acr),
            max_auth_age,
            step_up_challenge: issuer.challenge(&step_up)?,
            scopes: by_method.into(),
        })
    }

    /// The scopes that a request needs.
    pub fn scopes(&self, method: &Method) -> Option<&Scopes> {
        let fits = |own: &Option<Method>| own.as_ref().is_none_or(|own| own == method);
        self.scopes.iter().find(|(own, _)| fits(own)).map(|(_, scopes)| scopes)
    }
}

fn scopes(demands: &config::Demands, more: &[String], issuer: &Issuer) -> Result<Scopes> {
    let mut all = demands.scopes.clone();
    all.extend(more.iter().filter(|scope| !demands.scopes.contains(scope)).cloned());
    let named = [all.as_slice(), &demands.any_scope].concat();
    for scope in &named {
        if !is_scope_token(scope) {
            bail!(
                "`{scope}` is no scope: RFC 6749 section 3.3 allows visible ASCII without quote and backslash"
            );
        }
    }
    let challenge =
        issuer.challenge(&format!(", error=\"insufficient_scope\", scope=\"{}\"", named.join(" ")))?;
    Ok(Scopes { all: boxed(&all), challenge })
}

/// `scope-token` of RFC 6749 section 3.3.
fn is_scope_token(scope: &str) -> bool {
    !scope.is_empty() && scope.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
}

fn boxed(texts: &[String]) -> Box<[Box<str>]> {
    texts.iter().map(|text| text.as_str().into()).collect()
}
