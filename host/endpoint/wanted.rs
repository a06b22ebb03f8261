//! From a client's request to what it wants of which service: merged names are resolved, and what only one instance
//! can continue is led back to it.

use std::borrow::Cow;
use std::ops::Range;

use super::Scope;
use crate::mcp::answer;
use crate::mcp::catalogue::View;
use crate::mcp::message::{Message, string};
use crate::mcp::own::OwnTool;
use crate::mcp::turn;
use crate::mesh::ids::Name;
use crate::mesh::offer::Kind;
use crate::registry::Snapshot;

/// What a request wants.
pub(super) enum Wanted<'m> {
    /// Something that an instance does.
    Call(Call<'m>),
    /// One of the proxy's own tools.
    Own(OwnTool),
}

/// A request for an instance.
pub(super) struct Call<'m> {
    pub service: Name,
    /// The tool's own name; empty for other methods.
    pub tool: Cow<'m, str>,
    /// What stands in the `Mcp-Name` header, as the instance knows it.
    pub name: Option<Cow<'m, str>>,
    /// Spans of the message and the JSON text that takes their place. The tool's name is not among them: a router
    /// may still change it.
    pub edits: Vec<(Range<usize>, String)>,
    /// The instance that alone can continue what the request continues.
    pub bound: Option<Name>,
}

/// Why a request wants nothing that there is: code and text of a JSON-RPC error.
pub(super) struct NotThere(pub i32, pub String);

/// Methods that go to an instance as calls: routers see them, and they are counted.
pub(super) fn is_call(method: &str) -> bool {
    matches!(
        method,
        "tools/call"
            | "prompts/get"
            | "resources/read"
            | "completion/complete"
            | "tasks/get"
            | "tasks/update"
            | "tasks/cancel"
            | "tasks/result"
    )
}

/// Methods of the legacy era that name a resource.
pub(super) fn is_subscription(method: &str) -> bool {
    matches!(method, "resources/subscribe" | "resources/unsubscribe")
}

impl<'m> Wanted<'m> {
    pub fn read(
        scope: &Scope,
        view: &View,
        snapshot: &Snapshot,
        message: &Message<'m>,
    ) -> Result<Self, NotThere> {
        let invalid = |text: &str| NotThere(answer::INVALID_PARAMS, text.to_owned());
        let params = message.params().ok_or_else(|| invalid("there are no `params`"))?;
        let (kind, key, raw) = match message.method() {
            "tools/call" => (Some(Kind::Tool), params.name, params.name),
            "prompts/get" => (Some(Kind::Prompt), params.name, params.name),
            "resources/read" | "resources/subscribe" | "resources/unsubscribe" => {
                (Some(Kind::Resource), params.uri, params.uri)
            }
            "completion/complete" => match params.reference.as_ref().map(|to| (to.name, to.uri)) {
                Some((Some(name), _)) => (Some(Kind::Prompt), Some(name), Some(name)),
                Some((None, uri)) => (Some(Kind::Template), uri, uri),
                None => (None, None, None),
            },
            _ => (None, params.task_id, None),
        };
        let text = key.and_then(string);
        let found = match (scope.is_service(), kind, &text) {
            (false, Some(kind), Some(text)) => {
                Some(view.find(kind, text).ok_or_else(|| unknown(kind, text))?)
            }
            _ => None,
        };
        // The proxy's own tools are there before any service is.
        if let Some(own) = found.as_ref().and_then(|found| found.own) {
            return Ok(Self::Own(own));
        }
        // Replaced below by the service that the request is found to be for.
        let mut call = Call::plain(view.services().first().ok_or_else(nothing)?);
        match (scope, kind, &text) {
            (Scope::Service(service), kind, text) => {
                call.service = service.clone();
                if let (Some(kind), Some(text), true) = (kind, text, view.is_filtered())
                    && view.find(kind, text).is_none()
                {
                    return Err(unknown(kind, text));
                }
                if kind == Some(Kind::Tool) {
                    call.tool = text.clone().ok_or_else(|| invalid("`name` must be a string"))?;
                }
                call.name = text.clone();
            }
            (_, Some(kind), Some(text)) => {
                let found = found.ok_or_else(|| unknown(kind, text))?;
                call.service = found.service;
                if kind == Kind::Tool {
                    call.tool = Cow::Owned(found.key.to_string());
                } else if let Some(raw) = raw.filter(|_| found.key[..] != text[..]) {
                    call.edits.push((message.span(raw.get()), turn::quoted(&found.key)));
                }
                call.name = Some(Cow::Owned(found.key.to_string()));
            }
            (_, Some(_), None) => return Err(invalid("`name`, `uri` or `ref` must name what is wanted")),
            (_, None, _) => {}
        }
        call.unbind(scope, snapshot, message)?;
        Ok(Self::Call(call))
    }
}

impl Call<'_> {
    /// A request to a service that is passed on as it is.
    pub fn plain(service: &Name) -> Self {
        Self { service: service.clone(), tool: Cow::Borrowed(""), name: None, edits: Vec::new(), bound: None }
    }

    /// Takes the marks off what the proxy has marked with an instance's name.
    fn unbind(&mut self, scope: &Scope, snapshot: &Snapshot, message: &Message<'_>) -> Result<(), NotThere> {
        let params = message.params().into_iter();
        let marked = params.flat_map(|params| [(params.request_state, false), (params.task_id, true)]);
        let mut service = None;
        for (raw, is_task) in marked {
            let Some(raw) = raw else { continue };
            let Some((instance, value)) = turn::untagged(raw.get()) else { continue };
            let gone = || {
                let text = format!("what this request continues was begun by `{instance}`, which is gone");
                NotThere(answer::INVALID_PARAMS, text)
            };
            let instance = Name::new(instance).map_err(|_| gone())?;
            let home = snapshot.service_of(instance.as_str()).ok_or_else(gone)?;
            service = Some(home.name.clone());
            if is_task {
                self.name = serde_json::from_str::<String>(&value).ok().map(Cow::Owned);
            }
            self.edits.push((message.span(raw.get()), value));
            self.bound = Some(instance);
        }
        match (scope, service) {
            (Scope::Service(own), Some(other)) if *own != other => {
                Err(NotThere(answer::INVALID_PARAMS, "this was begun elsewhere".to_owned()))
            }
            (Scope::Service(_), _) => Ok(()),
            (_, Some(service)) => {
                self.service = service;
                Ok(())
            }
            (_, None) if self.name.is_none() || message.method().starts_with("tasks/") => {
                Err(NotThere(answer::INVALID_PARAMS, "no service is known by this".to_owned()))
            }
            (_, None) => Ok(()),
        }
    }
}

fn nothing() -> NotThere {
    NotThere(answer::INVALID_PARAMS, "no service is offered here".to_owned())
}

fn unknown(kind: Kind, key: &str) -> NotThere {
    match kind {
        Kind::Resource => NotThere(answer::RESOURCE_NOT_FOUND, format!("there is no resource `{key}`")),
        _ => {
            let list = kind.list_method();
            NotThere(
                answer::INVALID_PARAMS,
                format!("there is no {} `{key}`; `{list}` has them all", kind.as_str()),
            )
        }
    }
}
