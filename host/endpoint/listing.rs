//! What is answered without asking anybody: listings out of the catalogue, and who the proxy is.

use bytes::{BufMut, Bytes, BytesMut};
use http::{Response, StatusCode};

use super::{json, refuse};
use crate::body::Body;
use crate::mcp::answer::{self, VERSIONS};
use crate::mcp::catalogue::View;
use crate::mcp::envelope::{CLIENT_INFO, put_string};
use crate::mcp::era::Era;
use crate::mcp::message::{Message, string};
use crate::mcp::turn;
use crate::mesh::offer::{About, Kind};

/// What the proxy itself can do, in either era.
const CAPABILITIES: &str = r#"{"tools":{"listChanged":true},"prompts":{"listChanged":true},"resources":{"subscribe":true,"listChanged":true},"completions":{},"logging":{}}"#;

/// The list that a method asks for.
pub(super) fn kind_of(method: &str) -> Option<Kind> {
    Kind::ALL.into_iter().find(|kind| kind.list_method() == method)
}

/// A page of a list.
pub(super) fn page(era: Era, view: &View, kind: Kind, message: &Message<'_>) -> Response<Body> {
    let id = message.id().unwrap_or("null");
    let cursor = message.params().and_then(|params| params.cursor);
    let page = match cursor.map(string) {
        Some(None) => return refuse(era, Some(id), answer::INVALID_PARAMS, "`cursor` must be a string"),
        cursor => match view.page(kind, cursor.flatten().as_deref()) {
            Ok(page) => page,
            Err(error) => {
                let body = answer::error(Some(id), answer::INVALID_PARAMS, &error.to_string(), None);
                return json(StatusCode::OK, body);
            }
        },
    };
    let (mut head, _) = answer::result_frame(id);
    if era == Era::Modern {
        head.put_slice(br#"{"resultType":"complete","ttlMs":0,"cacheScope":"private",""#);
    } else {
        head.put_slice(b"{\"");
    }
    head.put_slice(kind.list_member().as_bytes());
    head.put_slice(b"\":[");
    let end = match page.next_cursor {
        None => Bytes::from_static(b"]}}"),
        Some(next) => {
            let mut end = BytesMut::from(&b"],\"nextCursor\":"[..]);
            put_string(&mut end, &next);
            end.put_slice(b"}}");
            end.freeze()
        }
    };
    json(StatusCode::OK, crate::body::ReplyBody::from([head.freeze(), page.members, end]))
}

/// The result of `initialize`: the proxy's own, or what a service is known to say.
pub(super) fn initialized(asked: &str, about: Option<&About>) -> String {
    let version = turn::quoted(answer::negotiate(asked));
    let (capabilities, info) = own_words(about);
    let mut members =
        vec![("protocolVersion", version.as_str()), ("capabilities", capabilities), ("serverInfo", info)];
    members.extend(about.and_then(|about| about.instructions.as_deref()).map(|text| ("instructions", text)));
    turn::object(members.into_iter())
}

/// The answer to `server/discover`: the proxy's own, or what a service is known to say.
pub(super) fn discovered(message: &Message<'_>, about: Option<&About>) -> Response<Body> {
    let versions = format!("[\"{}\"]", VERSIONS.join("\",\""));
    let (capabilities, info) = own_words(about);
    let meta = turn::object([("io.modelcontextprotocol/serverInfo", info)].into_iter());
    let mut members = vec![
        ("resultType", "\"complete\""),
        ("supportedVersions", versions.as_str()),
        ("capabilities", capabilities),
        ("ttlMs", "0"),
        ("cacheScope", "\"private\""),
        ("_meta", meta.as_str()),
    ];
    members.extend(about.and_then(|about| about.instructions.as_deref()).map(|text| ("instructions", text)));
    let result = turn::object(members.into_iter());
    json(StatusCode::OK, answer::result(message.id().unwrap_or("null"), result.as_bytes()))
}

fn own_words(about: Option<&About>) -> (&str, &str) {
    match about {
        None => (CAPABILITIES, CLIENT_INFO),
        Some(about) => (
            about.capabilities.as_deref().unwrap_or("{}"),
            about.server_info.as_deref().unwrap_or(CLIENT_INFO),
        ),
    }
}
