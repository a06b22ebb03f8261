//! Asking an instance how it is and what it offers.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::ask::{Answer, Ask};
use super::peer::{Peer, Post, Spoken};
use super::reply::{Events, Reply};
use super::{SendError, Times};
use crate::mcp::answer::METHOD_NOT_FOUND;
use crate::mcp::declared::{Announced, Page};
use crate::mcp::envelope;
use crate::mcp::era::METHOD;
use crate::mesh::offer::{Era, Item, Kind, Offer};

/// Most tools that are kept of one instance; so for prompts, resources and templates.
pub const ITEMS_MAX: usize = 1000;
/// Most pages of one listing that are asked for.
const PAGES_MAX: usize = 100;

/// Interest in all lists.
const ALL_LISTS: &str = r#"{"toolsListChanged":true,"promptsListChanged":true,"resourcesListChanged":true}"#;

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
        self.ask(&Ask { method, name: None, members: &[], mirrored: &[], recalls: None }, times)
            .await
            .map(drop)
    }

    /// Opens a stream of what the instance says unasked. A modern one is told what is listened for: the
    /// `notifications` of `subscriptions/listen`, JSON text.
    ///
    /// # Errors
    /// The instance could not be asked.
    pub async fn listen_for(
        &self,
        spoken: &Spoken,
        notifications: &str,
        times: &Times,
    ) -> Result<Reply, SendError> {
        if spoken.era == Era::Legacy {
            return self.listen(spoken, None, times).await;
        }
        let id = self.next_id().to_string();
        let body = envelope::listen(&id, notifications);
        let headers = [(METHOD.as_str(), &b"subscriptions/listen"[..])];
        let post = Post { id: Some(&id), token: None, headers: &headers, body: &[&body] };
        self.post(spoken, &post, times).await
    }

    /// A stream that tells when what is offered changes; `None` where the instance has none.
    pub async fn changes(&self, times: &Times) -> Option<Events> {
        let spoken = self.ready(times).await.ok()?;
        let says = spoken.about.capabilities.as_deref().is_some_and(|said| said.contains("listChanged"));
        if !says {
            return None;
        }
        match self.listen_for(&spoken, ALL_LISTS, times).await {
            Ok(Reply::Stream(stream)) => Some(stream.events),
            // Servers need not offer one; what changes is then seen at the next listing.
            Ok(Reply::Whole(_)) | Err(_) => None,
        }
    }

    /// Everything that the instance offers, as it declares it. `declared` are the tools that it gave when it
    /// registered; when there are any it is not asked for others.
    ///
    /// # Errors
    /// The instance could not be asked, or an answer was no listing.
    pub async fn list_offer(&self, declared: &[Item], times: &Times) -> Result<Offer, SendError> {
        let about = Arc::clone(&self.ready(times).await?.about);
        let announced = about.capabilities.as_deref().map(Announced::read).unwrap_or_default();
        let mut offer = Offer::default();
        for kind in Kind::ALL {
            // Some servers announce nothing and have tools all the same.
            let asked = announced.has(kind) || (kind == Kind::Tool && announced == Announced::default());
            let items = match kind {
                Kind::Tool if !declared.is_empty() => declared.to_vec(),
                _ if asked => self.list(kind, times).await?,
                _ => continue,
            };
            offer = offer.with(kind, items);
        }
        Ok(offer.with_about(Some(about)))
    }

    async fn list(&self, kind: Kind, times: &Times) -> Result<Vec<Item>, SendError> {
        let mut items = Vec::new();
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
            let ask = Ask { method: kind.list_method(), name: None, members, mirrored: &[], recalls: None };
            let result = match self.ask(&ask, times).await? {
                Answer::Result(result) => result,
                // A server that announces resources may have no templates, and so not know the method. One that
                // fails with this list may still have good others.
                Answer::Error(error) if page == 0 => {
                    if !is_unknown_method(&error) {
                        let error = String::from_utf8_lossy(&error);
                        tracing::warn!(method = ask.method, %error, "listing refused, taken for empty");
                    }
                    return Ok(items);
                }
                Answer::Error(error) => {
                    let detail = String::from_utf8_lossy(&error).chars().take(200).collect();
                    return Err(SendError::Status { status: http::StatusCode::OK, detail });
                }
            };
            let page = Page::read(kind, &result).map_err(envelope::AnswerError::Malformed)?;
            items.extend(page.items);
            cursor = page.next_cursor;
            if cursor.is_none() || items.len() >= ITEMS_MAX {
                break;
            }
        }
        if items.len() > ITEMS_MAX {
            tracing::warn!(
                kind = kind.as_str(),
                count = items.len(),
                "too many declarations, {ITEMS_MAX} are kept"
            );
            items.truncate(ITEMS_MAX);
        }
        Ok(items)
    }
}

/// Says so by its code, or, as older SDKs do, in words alone.
fn is_unknown_method(error: &[u8]) -> bool {
    serde_json::from_slice::<&RawValue>(error).is_ok_and(|error| {
        let (code, message) = envelope::error_text(error);
        code == i64::from(METHOD_NOT_FOUND) || message.to_ascii_lowercase().contains("method not found")
    })
}
