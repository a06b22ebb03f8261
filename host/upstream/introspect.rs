//! Asking an instance how it is and what it offers.

use super::peer::{Answer, Ask, Peer};
use super::{SendError, Times};
use crate::mcp::envelope;
use crate::mcp::era::Era;
use crate::mcp::tools::Page;
use crate::mesh::instance::Tool;

/// Most tools that are kept of one instance.
pub const TOOLS_MAX: usize = 1000;
/// Most pages of `tools/list` that are asked for.
const PAGES_MAX: usize = 100;

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    Good,
    /// Alive, but wants credentials: probing on would only bother it.
    Unauthorized,
    Refused,
    Bad(String),
}

impl Peer {
    /// Asks for a sign of life in the protocol itself: `ping`, or `server/discover` in the modern era.
    pub async fn probe(&self, times: &Times) -> Probe {
        match self.try_probe(times).await {
            Ok(()) => Probe::Good,
            Err(SendError::Status { status, .. } | SendError::Handshake { status: Some(status), .. })
                if matches!(status.as_u16(), 401 | 403) =>
            {
                Probe::Unauthorized
            }
            Err(error) if error.is_refused() => Probe::Refused,
            Err(error) => Probe::Bad(super::chain(&error)),
        }
    }

    async fn try_probe(&self, times: &Times) -> Result<(), SendError> {
        let spoken = self.ready(times).await?;
        let method = match spoken.era {
            Era::Legacy => "ping",
            Era::Modern => "server/discover",
        };
        // Any answer in the protocol is a sign of life, an error too: some servers do not know `ping`.
        self.ask(&Ask { method, name: None, members: &[] }, times).await.map(drop)
    }

    /// All tools that the instance offers, as it declares them.
    ///
    /// # Errors
    /// The instance could not be asked, or its answer was no list of tools.
    pub async fn list_tools(&self, times: &Times) -> Result<Vec<Tool>, SendError> {
        let mut tools = Vec::new();
        let mut cursor: Option<String> = None;
        for page in 0..PAGES_MAX {
            let quoted = cursor.as_deref().map(|cursor| {
                let mut out = bytes::BytesMut::from(&b"\"cursor\":"[..]);
                envelope::put_string(&mut out, cursor);
                out
            });
            let members: &[&[u8]] = match &quoted {
                Some(quoted) => &[quoted],
                None => &[],
            };
            let result = match self.ask(&Ask { method: "tools/list", name: None, members }, times).await? {
                Answer::Result(result) => result,
                // A server without tools does not know the method.
                Answer::Error(_) if page == 0 => return Ok(tools),
                Answer::Error(error) => {
                    let detail = String::from_utf8_lossy(&error).chars().take(200).collect();
                    return Err(SendError::Status { status: http::StatusCode::OK, detail });
                }
            };
            let page: Page<'_> = serde_json::from_slice(&result).map_err(envelope::AnswerError::Malformed)?;
            tools.extend(page.tools());
            cursor = page.next_cursor;
            if cursor.is_none() || tools.len() >= TOOLS_MAX {
                break;
            }
        }
        tools.truncate(TOOLS_MAX);
        Ok(tools)
    }
}
