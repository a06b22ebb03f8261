//! `Host` and `Origin`, checked apart on every request: a web page in the user's browser must not reach the proxy
//! under a name of its own (DNS rebinding), nor from an origin of its own.

use std::net::SocketAddr;

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, HeaderValue, Request, StatusCode};

use crate::problem::Problem;

/// The names and origins that are let in.
#[derive(Clone, Debug)]
pub struct Guard {
    hosts: Vec<String>,
    origins: Vec<String>,
}

const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

impl Guard {
    /// `bound` are the addresses in use; `hosts` (names without port) and `origins` are let in beside them.
    pub fn new(bound: &[SocketAddr], hosts: &[String], origins: &[String]) -> Self {
        let mut all_hosts: Vec<String> = LOOPBACK.map(str::to_owned).into();
        all_hosts.extend(bound.iter().map(|address| match address {
            SocketAddr::V4(v4) => v4.ip().to_string(),
            SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
        }));
        let ports = bound.iter().map(SocketAddr::port);
        let mut all_origins: Vec<String> = ports
            .flat_map(|port| {
                all_hosts.iter().map(move |host| format!("http://{host}:{port}")).collect::<Vec<_>>()
            })
            .collect();
        all_hosts.extend(hosts.iter().map(|host| host.to_ascii_lowercase()));
        all_origins.extend(origins.iter().map(|origin| origin.to_ascii_lowercase()));
        Self { hosts: all_hosts, origins: all_origins }
    }

    /// # Errors
    /// 403 for a foreign, missing or doubled name, and for any origin that is not let in, `null` too.
    pub fn check<B>(&self, request: &Request<B>) -> Result<(), Problem<'static>> {
        let headers = request.headers();
        let host = only(headers, &HOST).and_then(|value| host_name(value.as_bytes()));
        if !host
            .is_some_and(|host| self.hosts.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(host)))
        {
            let hint = "use 127.0.0.1 or localhost, or add the name to `server.allowed_hosts`";
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "foreign_host",
                "the `Host` of the request is not this proxy's",
                hint,
            ));
        }
        // An absolute request target names the host once more.
        let target = request.uri().host();
        if target.is_some_and(|target| !self.hosts.iter().any(|known| known.eq_ignore_ascii_case(target))) {
            let hint = "send the path alone";
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "foreign_host",
                "the request's target is not this proxy",
                hint,
            ));
        }
        if !headers.contains_key(&ORIGIN) {
            return Ok(());
        }
        let origin = only(headers, &ORIGIN);
        let known = |origin: &HeaderValue| {
            self.origins.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(origin.as_bytes()))
        };
        if origin.is_some_and(known) {
            return Ok(());
        }
        let hint = "pages of other origins may not call; add theirs to `server.allowed_origins`";
        Err(Problem::new(
            StatusCode::FORBIDDEN,
            "foreign_origin",
            "the `Origin` of the request is not let in",
            hint,
        ))
    }
}

/// The header's value, if it is there exactly once.
fn only<'a>(headers: &'a HeaderMap, name: &http::HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() { None } else { first }
}

/// The host without its port.
fn host_name(value: &[u8]) -> Option<&[u8]> {
    let after_bracket = memchr::memchr(b']', value).map_or(0, |at| at + 1);
    let end = memchr::memchr(b':', &value[after_bracket..]).map_or(value.len(), |at| after_bracket + at);
    let port = value.get(end + 1..).unwrap_or_default();
    let port_ok = port.iter().all(u8::is_ascii_digit) && port.len() <= 5;
    port_ok.then(|| &value[..end]).filter(|host| !host.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Guard {
        let bound = "127.0.0.1:6001".parse().expect("an address");
        Guard::new(&[bound], &["mesh.internal".to_owned()], &["https://board.internal".to_owned()])
    }

    fn check(host: &[&str], origin: &[&str]) -> Result<(), &'static str> {
        let mut request = Request::new(());
        for host in host {
            request.headers_mut().append(HOST, host.parse().expect("a value"));
        }
        for origin in origin {
            request.headers_mut().append(ORIGIN, origin.parse().expect("a value"));
        }
        guard().check(&request).map_err(|problem| problem.code())
    }

    #[test]
    fn own_names_and_absent_origins_are_let_in() {
        for host in ["127.0.0.1:6001", "localhost", "LOCALHOST:1", "[::1]:6001", "mesh.internal:80"] {
            assert_eq!(check(&[host], &[]), Ok(()), "{host}");
        }
        assert_eq!(check(&["localhost"], &["http://localhost:6001"]), Ok(()));
        assert_eq!(check(&["localhost"], &["https://board.internal"]), Ok(()));
    }

    #[test]
    fn foreign_doubled_and_missing_hosts_are_refused() {
        let hosts: [&[&str]; 7] = [
            &[],
            &["evil.test"],
            &["localhost.evil.test"],
            &["localhost", "localhost"],
            &[""],
            &["localhost:6001x"],
            &["127.0.0.1@evil.test"],
        ];
        for host in hosts {
            assert_eq!(check(host, &[]), Err("foreign_host"), "{host:?}");
        }
    }

    #[test]
    fn foreign_null_and_doubled_origins_are_refused() {
        let origins: [&[&str]; 5] = [
            &["null"],
            &["http://evil.test"],
            &["http://localhost:6002"],
            &["http://localhost:6001", "http://localhost:6001"],
            &["http://localhost:6001.evil.test"],
        ];
        for origin in origins {
            assert_eq!(check(&["localhost"], origin), Err("foreign_origin"), "{origin:?}");
        }
    }
}
