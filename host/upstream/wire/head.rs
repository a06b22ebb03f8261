//! The head of an answer, and how its body is framed.

use http::{HeaderValue, StatusCode};
use thiserror::Error;

/// Largest head of an answer.
pub(super) const HEAD_BYTES_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 100;

/// An answer that is not HTTP/1.1, or frames its body in two ways at once.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum HeadError {
    #[error("the answer is not HTTP/1.1: {0}")]
    Syntax(httparse::Error),
    #[error("the head of the answer is larger than {HEAD_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the answer's `Content-Length` is not one number")]
    Length,
    #[error("the answer's `Transfer-Encoding` is not `chunked`")]
    Encoding,
}

/// What the media type says of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Media {
    Json,
    EventStream,
    /// Anything else, as it was named.
    Other(String),
}

/// How the end of a body is found (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Bytes that are still to come.
    Length(u64),
    Chunked,
    /// The body ends with the connection.
    Close,
}

/// What is looked at of an answer's head.
#[derive(Debug)]
pub struct Head {
    pub status: StatusCode,
    pub media: Media,
    pub session: Option<HeaderValue>,
    pub framing: Framing,
    /// The connection may carry another request.
    pub keeps_alive: bool,
}

/// Reads a head from the beginning of `bytes`; `None` when it is not whole yet. The number is its length.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, HeadError> {
    let mut headers = [const { std::mem::MaybeUninit::uninit() }; HEADERS_MAX];
    let mut answer = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let length = match config.parse_response_with_uninit_headers(&mut answer, bytes, &mut headers) {
        Ok(httparse::Status::Complete(length)) if length <= HEAD_BYTES_MAX => length,
        Ok(httparse::Status::Partial) if bytes.len() <= HEAD_BYTES_MAX => return Ok(None),
        Ok(_) => return Err(HeadError::TooLarge),
        Err(error) => return Err(HeadError::Syntax(error)),
    };
    let status = answer.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or(HeadError::Syntax(httparse::Error::Status))?;
    let mut head = Head {
        status,
        media: Media::Other(String::new()),
        session: None,
        framing: Framing::Close,
        keeps_alive: answer.version == Some(1),
    };
    let mut content_length: Option<u64> = None;
    let mut chunked = false;
    for header in answer.headers.iter() {
        let value = header.value.trim_ascii();
        // Most headers are none of these; their length tells it.
        match header.name.len() {
            10 if header.name.eq_ignore_ascii_case("connection") && list_has(value, "close") => {
                head.keeps_alive = false;
            }
            12 if header.name.eq_ignore_ascii_case("content-type") => head.media = media(value),
            14 if header.name.eq_ignore_ascii_case("content-length") => {
                let number =
                    std::str::from_utf8(value).ok().filter(|v| v.bytes().all(|b| b.is_ascii_digit()));
                let number = number.and_then(|v| v.parse().ok()).ok_or(HeadError::Length)?;
                if content_length.is_some_and(|before| before != number) {
                    return Err(HeadError::Length);
                }
                content_length = Some(number);
            }
            14 if header.name.eq_ignore_ascii_case("mcp-session-id") => {
                head.session = HeaderValue::from_bytes(value).ok();
            }
            17 if header.name.eq_ignore_ascii_case("transfer-encoding") => {
                if chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(HeadError::Encoding);
                }
                chunked = true;
            }
            _ => {}
        }
    }
    head.framing = match (chunked, content_length) {
        _ if status.is_informational() || matches!(status.as_u16(), 204 | 304) => Framing::Length(0),
        // Both at once is how answers are smuggled: such a connection is not used again.
        (true, Some(_)) => {
            head.keeps_alive = false;
            Framing::Chunked
        }
        (true, None) => Framing::Chunked,
        (false, Some(length)) => Framing::Length(length),
        (false, None) => {
            head.keeps_alive = false;
            Framing::Close
        }
    };
    Ok(Some((head, length)))
}

fn media(value: &[u8]) -> Media {
    let end = memchr::memchr(b';', value).unwrap_or(value.len());
    let kind = value[..end].trim_ascii();
    if kind.eq_ignore_ascii_case(b"application/json") {
        Media::Json
    } else if kind.eq_ignore_ascii_case(b"text/event-stream") {
        Media::EventStream
    } else {
        Media::Other(String::from_utf8_lossy(kind).into_owned())
    }
}

fn list_has(value: &[u8], word: &str) -> bool {
    value.split(|b| *b == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framing(head: &str) -> Result<(Framing, bool), HeadError> {
        let head = format!("HTTP/1.1 200 OK\r\n{head}\r\n");
        parse(head.as_bytes())
            .map(|head| head.map(|(head, _)| (head.framing, head.keeps_alive)).expect("whole"))
    }

    #[test]
    fn bodies_are_framed_as_the_rfc_says() {
        assert_eq!(framing("Content-Length: 12\r\n"), Ok((Framing::Length(12), true)));
        assert_eq!(framing("Transfer-Encoding: Chunked\r\n"), Ok((Framing::Chunked, true)));
        assert_eq!(
            framing("Connection: foo, Close\r\nContent-Length: 1\r\n"),
            Ok((Framing::Length(1), false))
        );
        assert_eq!(framing(""), Ok((Framing::Close, false)));
        let empty = parse(b"HTTP/1.1 204 No Content\r\n\r\n").expect("a head").expect("whole");
        assert_eq!(empty.0.framing, Framing::Length(0));
    }

    #[test]
    fn doubtful_framing_is_refused_or_not_trusted_twice() {
        assert_eq!(framing("Content-Length: 1\r\nContent-Length: 2\r\n"), Err(HeadError::Length));
        assert_eq!(framing("Content-Length: +1\r\n"), Err(HeadError::Length));
        assert_eq!(framing("Content-Length: 1, 1\r\n"), Err(HeadError::Length));
        assert_eq!(framing("Transfer-Encoding: gzip, chunked\r\n"), Err(HeadError::Encoding));
        let both = framing("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n");
        assert_eq!(both, Ok((Framing::Chunked, false)));
    }

    #[test]
    fn a_head_is_waited_for_until_it_is_too_large() {
        assert!(parse(b"HTTP/1.1 200 OK\r\nA: b").expect("so far so good").is_none());
        let long = format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(HEAD_BYTES_MAX));
        assert_eq!(parse(long.as_bytes()).map(|_| ()), Err(HeadError::TooLarge));
        assert!(matches!(parse(b"SSH-2.0-OpenSSH\r\n"), Err(HeadError::Syntax(_))));
    }

    #[test]
    fn media_types_are_read_without_parameters() {
        assert_eq!(media(b"Application/JSON; charset=utf-8"), Media::Json);
        assert_eq!(media(b"text/event-stream"), Media::EventStream);
        assert_eq!(media(b"text/html"), Media::Other("text/html".to_owned()));
    }
}
