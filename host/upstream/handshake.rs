//! Finding out how an instance is spoken to: the modern question first, the legacy handshake when it is not
//! understood.

use std::sync::Arc;

use http::HeaderValue;
use serde::Deserialize;

use super::peer::{Answer, Ask, Peer, Spoken};
use super::{SendError, Times};
use crate::mcp::era::{Era, LEGACY_VERSION, MODERN_VERSION, SESSION_HEADER};
use crate::mcp::{declared, envelope};
use crate::mesh::offer::About;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Discovered {
    #[serde(default)]
    supported_versions: Vec<String>,
    #[serde(default, rename = "_meta")]
    meta: Meta,
}

/// Modern results carry who answered in `_meta`.
#[derive(Default, Deserialize)]
struct Meta {
    #[serde(default, rename = "io.modelcontextprotocol/serverInfo")]
    server_info: ServerInfo,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Initialized {
    protocol_version: String,
    #[serde(default)]
    server_info: ServerInfo,
}

#[derive(Default, Deserialize)]
struct ServerInfo {
    #[serde(default)]
    name: String,
    #[serde(default)]
    version: String,
}

impl ServerInfo {
    fn text(&self) -> String {
        format!("{} {}", self.name, self.version).trim().to_owned()
    }
}

impl Peer {
    /// How the instance is spoken to; asks it when that is not known. Callers that come meanwhile wait for the
    /// first one's answer.
    pub(super) async fn ready(&self, times: &Times) -> Result<Arc<Spoken>, SendError> {
        if self.is_stdio {
            return Err(failed("this build cannot start processes yet".to_owned()));
        }
        if let Some(spoken) = self.spoken.load_full() {
            return Ok(spoken);
        }
        // Not longer than a connection may take: another instance may be free meanwhile.
        let patience = times.deadline.min(tokio::time::Instant::now() + times.connect);
        let waited = tokio::time::timeout_at(patience, self.handshake.lock()).await;
        let _guard = waited.map_err(|_| failed("another one is still under way".to_owned()))?;
        if let Some(spoken) = self.spoken.load_full() {
            return Ok(spoken);
        }
        let spoken = Arc::new(self.shake_hands(times).await.map_err(before_the_call)?);
        tracing::debug!(
            upstream = %self.target.host_header.to_str().unwrap_or_default(),
            era = spoken.era.as_str(),
            session = spoken.session.is_some(),
            server = spoken.server,
            "handshake done"
        );
        self.spoken.store(Some(Arc::clone(&spoken)));
        Ok(spoken)
    }

    async fn shake_hands(&self, times: &Times) -> Result<Spoken, SendError> {
        // Half of the time: a server that lets what it does not know hang is asked the old way, too.
        let now = tokio::time::Instant::now();
        let deadline = now + times.deadline.saturating_duration_since(now) / 2;
        match self.discover(&Times { deadline, ..*times }).await? {
            Some(modern) => Ok(modern),
            None => self.initialize(times).await,
        }
    }

    /// `None` when the instance does not know the modern era. Whatever a legacy server says to a method and a
    /// version that it never heard of (400, 404, 405, -32601, -32602, a stream) means just that.
    async fn discover(&self, times: &Times) -> Result<Option<Spoken>, SendError> {
        let modern = Spoken {
            era: Era::Modern,
            version: HeaderValue::from_static(MODERN_VERSION),
            session: None,
            server: String::new(),
            about: Arc::new(About::new(Era::Modern)),
        };
        let ask = Ask { method: "server/discover", name: None, members: &[] };
        let result = match self.ask_as(&modern, &ask, times).await {
            Ok(Answer::Result(result)) => result,
            Ok(Answer::Error(_)) => return Ok(None),
            Err(SendError::Status { status, .. }) if status.as_u16() == 401 => {
                return Err(SendError::Status {
                    status,
                    detail: "the instance asks for credentials".to_owned(),
                });
            }
            Err(
                SendError::Status { .. }
                | SendError::Malformed(_)
                | SendError::ContentType(_)
                | SendError::StreamEnded
                | SendError::SessionGone
                | SendError::DeadlinePassed
                | SendError::FirstByteTimeout(_)
                | SendError::Broken(_),
            ) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Ok(discovered) = serde_json::from_slice::<Discovered>(&result) else { return Ok(None) };
        if !discovered.supported_versions.iter().any(|version| version == MODERN_VERSION) {
            return Ok(None);
        }
        let about = Arc::new(declared::about(Era::Modern, &result));
        Ok(Some(Spoken { server: discovered.meta.server_info.text(), about, ..modern }))
    }

    async fn initialize(&self, times: &Times) -> Result<Spoken, SendError> {
        let id = self.next_id();
        let version = format!(r#""protocolVersion":"{LEGACY_VERSION}","capabilities":{{}},"clientInfo":"#);
        let members: [&[u8]; 2] = [version.as_bytes(), envelope::CLIENT_INFO.as_bytes()];
        let body = envelope::request(Era::Legacy, id, "initialize", &members);
        let request = self.request(None, None, body);
        let (session, answer) = self
            .exchange(request, times, |response| async {
                let session = response.headers().get(&SESSION_HEADER).cloned();
                Ok((session, self.read_answer(response, None, id, times).await?))
            })
            .await?;
        let result = match answer {
            Answer::Result(result) => result,
            Answer::Error(error) => {
                return Err(failed(String::from_utf8_lossy(&error).chars().take(200).collect()));
            }
        };
        let initialized: Initialized = serde_json::from_slice(&result)
            .map_err(|error| failed(format!("the result of `initialize` is not understood: {error}")))?;
        let version = HeaderValue::try_from(&initialized.protocol_version)
            .map_err(|_| failed("the protocol version cannot be a header".to_owned()))?;
        let about = Arc::new(declared::about(Era::Legacy, &result));
        let server = initialized.server_info.text();
        let spoken = Spoken { era: Era::Legacy, version, session, server, about };
        let ready = self.request(Some(&spoken), None, envelope::notification("notifications/initialized"));
        self.exchange(ready, times, |response| async {
            super::connection::collect(response.into_body(), times).await.map(drop)
        })
        .await?;
        Ok(spoken)
    }
}

fn failed(why: String) -> SendError {
    SendError::Handshake { status: None, why }
}

/// Whatever breaks during the handshake, the call itself was not sent.
fn before_the_call(error: SendError) -> SendError {
    match error {
        SendError::Connect(_)
        | SendError::ConnectTimeout(_)
        | SendError::NotSent(_)
        | SendError::Handshake { .. } => error,
        SendError::Status { status, .. } => {
            SendError::Handshake { status: Some(status), why: super::chain(&error) }
        }
        other => failed(super::chain(&other)),
    }
}
