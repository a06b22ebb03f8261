//! `subscriptions/listen`: what a modern client is told unasked, by all instances that have to do with it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};

use super::ears::{Ears, Heard, Interest, Revisions, changed_list};
use super::relay::put_event;
use super::{Endpoint, Received, Scope, json, refuse, stream};
use crate::body::{Body, Out};
use crate::mcp::answer;
use crate::mcp::catalogue::View;
use crate::mcp::envelope::{self, CLIENT_INFO};
use crate::mcp::era::Era;
use crate::mcp::message::{self, Message, Shape};
use crate::mcp::turn::{self, Members};
use crate::mesh::offer::Kind;
use crate::registry::{Instance, Service, Snapshot};
use crate::upstream::{Post, Spoken};

const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long an acknowledgement waits for slow instances.
const SETTLE: Duration = Duration::from_millis(500);
const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";
/// Resources that one client may be told of.
const RESOURCES_MAX: usize = 1000;

/// What the client wants to be told.
struct Wish {
    /// The id of its request, JSON text.
    id: String,
    lists: Vec<&'static str>,
    /// The URIs as the client knows them, and as their service does.
    resources: Vec<Watched>,
}

struct Watched {
    shown: String,
    service: crate::mesh::ids::Name,
    uri: String,
}

impl Endpoint {
    pub(super) async fn subscribe(
        self: &Arc<Self>,
        received: &Received<'_>,
        message: &Message<'_>,
    ) -> Response<Body> {
        let id = message.id().unwrap_or("null").to_owned();
        let Some(view) = received.scope.view(received.snapshot) else {
            return super::problem(&received.scope.missing());
        };
        if !offers(received.scope, view) {
            let text = "nothing that is offered here tells of its changes";
            return refuse(Era::Modern, Some(&id), answer::METHOD_NOT_FOUND, text);
        }
        let wish = match Wish::read(id, received.scope, view, message) {
            Ok(wish) => wish,
            Err(text) => {
                return json(
                    StatusCode::OK,
                    answer::error(message.id(), answer::INVALID_PARAMS, &text, None),
                );
            }
        };
        let (endpoint, scope) = (Arc::clone(self), received.scope.clone());
        stream(move |out| async move {
            tokio::select! {
                () = endpoint.watch_for(&scope, &wish, &out) => {}
                () = endpoint.stop.cancelled() => put_event(&out, None, &wish.end()).await,
            }
        })
    }

    async fn watch_for(&self, scope: &Scope, wish: &Wish, out: &Out) {
        let mut generations = self.registry.generations();
        let mut revisions = Revisions::default();
        let mut listening = Listening::default();
        let mut ticks = tokio::time::interval(KEEP_ALIVE);
        // The first tick comes at once, and would only say what the acknowledgement says.
        ticks.tick().await;
        self.listen_to_all(&mut listening, scope, wish).await;
        // What happens behind the acknowledgement is told, so it waits until the instances listen, for a moment.
        let early = listening.settle(wish, scope).await;
        put_event(out, None, &wish.acknowledgement()).await;
        for told in early {
            put_event(out, None, &told).await;
        }
        loop {
            if let Some(view) = scope.view(&self.registry.snapshot()).filter(|_| !scope.is_service()) {
                for method in revisions.changes(view) {
                    if changed_list(method).is_some_and(|list| wish.lists.contains(&list)) {
                        put_event(out, None, &wish.notification(method)).await;
                    }
                }
            }
            tokio::select! {
                changed = generations.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.listen_to_all(&mut listening, scope, wish).await;
                }
                _ = ticks.tick() => {
                    out.put(Bytes::from_static(b": keep-alive\n\n")).await;
                    listening.resting.clear();
                    self.listen_to_all(&mut listening, scope, wish).await;
                }
                told = listening.next(wish, scope) => {
                    if let Some(told) = told {
                        put_event(out, None, &told).await;
                    }
                }
            }
        }
    }

    /// Listens to the instances that have to do with the wish and are not listened to yet.
    async fn listen_to_all(&self, listening: &mut Listening, scope: &Scope, wish: &Wish) {
        let snapshot = self.registry.snapshot();
        listening.forget_absent(&snapshot);
        for instance in instances(&snapshot, scope, wish) {
            if listening.knows(instance) {
                continue;
            }
            listening.open.push((Arc::clone(instance), false));
            if let Some(spoken) = self.prepare(instance, wish).await {
                let interest = wish.interest(instance, scope);
                listening.ears.open(instance, &spoken, &interest, self.control_times());
            }
        }
    }

    /// Finds out how an instance is spoken to, and subscribes to its resources where that takes a request each.
    async fn prepare(&self, instance: &Arc<Instance>, wish: &Wish) -> Option<Arc<Spoken>> {
        let times = self.control_times();
        let spoken = match instance.peer.ready(&times).await {
            Ok(spoken) => spoken,
            Err(error) => {
                tracing::debug!(instance = %instance.name(), error = crate::upstream::chain(&error), "not listened to");
                return None;
            }
        };
        if spoken.era == Era::Legacy {
            for watched in wish.resources.iter().filter(|watched| watched.service == instance.spec.service) {
                let id = instance.peer.next_id().to_string();
                let body = envelope::subscribe(&id, &watched.uri);
                let post = Post { id: Some(&id), token: None, headers: &[], body: &[&body] };
                if let Err(error) = instance.peer.post(&spoken, &post, &times).await {
                    tracing::debug!(instance = %instance.name(), error = crate::upstream::chain(&error), "resource not subscribed to");
                }
            }
        }
        Some(spoken)
    }
}

/// The instances that are listened to.
#[derive(Default)]
struct Listening {
    ears: Ears,
    /// And whether each of them is known to tell.
    open: Vec<(Arc<Instance>, bool)>,
    /// Those whose streams ended: they are opened again, but not at once.
    resting: Vec<Arc<Instance>>,
}

impl Listening {
    fn knows(&self, instance: &Instance) -> bool {
        let same = |known: &Arc<Instance>| Arc::ptr_eq(&known.peer, &instance.peer);
        self.open.iter().any(|(known, _)| same(known)) || self.resting.iter().any(same)
    }

    fn forget_absent(&mut self, snapshot: &Snapshot) {
        self.open.retain(|(instance, _)| {
            let present = snapshot.instance(instance.name().as_str());
            present.is_some_and(|now| Arc::ptr_eq(&now.peer, &instance.peer))
        });
    }

    /// Waits until all tell, or a moment has passed, and gives back what was told meanwhile.
    async fn settle(&mut self, wish: &Wish, scope: &Scope) -> Vec<Bytes> {
        let mut early = Vec::new();
        let settled = async {
            while self.open.iter().any(|(_, tells)| !tells) {
                early.extend(self.next(wish, scope).await);
            }
        };
        // Whoever is slower is heard from when it comes.
        tokio::time::timeout(SETTLE, settled).await.ok();
        early
    }

    /// What is told next; `None` when it was nothing for this client.
    async fn next(&mut self, wish: &Wish, scope: &Scope) -> Option<Bytes> {
        let (instance, heard) = self.ears.next().await;
        let same = |known: &Arc<Instance>| Arc::ptr_eq(&known.peer, &instance.peer);
        let legacy = instance.peer.spoken().is_some_and(|spoken| spoken.era == Era::Legacy);
        let tells = match &heard {
            Heard::Opened => legacy,
            Heard::Event(_) => true,
            Heard::Ended => {
                self.open.retain(|(known, _)| !same(known));
                self.resting.push(instance);
                return None;
            }
        };
        for (known, told) in &mut self.open {
            *told |= tells && same(known);
        }
        match heard {
            Heard::Event(event) => {
                let data = event.data.filter(|data| !data.is_empty())?;
                wish.told(&data, &instance, scope)
            }
            Heard::Opened | Heard::Ended => None,
        }
    }
}

/// Whether there is anything to be told of.
fn offers(scope: &Scope, view: &View) -> bool {
    if !scope.is_service() {
        return true;
    }
    let capabilities = view.about().and_then(|about| about.capabilities.clone());
    let capabilities = capabilities.as_deref().and_then(Members::of).map(|members| {
        members.0.iter().any(|(_, value)| {
            let flags = Members::of(value.get());
            flags.is_some_and(|flags| {
                flags.get("listChanged") == Some("true") || flags.get("subscribe") == Some("true")
            })
        })
    });
    capabilities.unwrap_or(true)
}

/// The instances that have to do with a wish.
fn instances<'s>(snapshot: &'s Snapshot, scope: &Scope, wish: &Wish) -> Vec<&'s Arc<Instance>> {
    let services: Vec<&Arc<Service>> = match scope {
        Scope::Service(service) => snapshot.service(service.as_str()).into_iter().collect(),
        // Changes of lists show in the catalogue; only resources have to be listened for.
        _ => {
            let mut names: Vec<_> = wish.resources.iter().map(|watched| &watched.service).collect();
            names.sort();
            names.dedup();
            names.into_iter().filter_map(|name| snapshot.service(name.as_str())).collect()
        }
    };
    services
        .into_iter()
        .flat_map(|service| &service.instances)
        .filter(|instance| instance.is_routable())
        .collect()
}

impl Wish {
    fn read(id: String, scope: &Scope, view: &View, message: &Message<'_>) -> Result<Self, String> {
        let said = message.params().and_then(|params| params.notifications).map_or("{}", |raw| raw.get());
        let members = Members::of(said).ok_or("`notifications` must be an object")?;
        let mut wish = Self { id, lists: Vec::new(), resources: Vec::new() };
        for (list, kind) in [
            ("toolsListChanged", Kind::Tool),
            ("promptsListChanged", Kind::Prompt),
            ("resourcesListChanged", Kind::Resource),
        ] {
            let offered = !scope.is_service() || announces(view, kind);
            if members.get(list) == Some("true") && offered {
                wish.lists.push(list);
            }
        }
        let uris: Vec<String> = members
            .get("resourceSubscriptions")
            .map(|uris| {
                serde_json::from_str(uris).map_err(|_| "`resourceSubscriptions` must be a list of URIs")
            })
            .transpose()?
            .unwrap_or_default();
        if uris.len() > RESOURCES_MAX {
            return Err(format!("at most {RESOURCES_MAX} resources can be subscribed to at once"));
        }
        for shown in uris {
            let (service, uri) = match scope {
                Scope::Service(service) => (service.clone(), shown.clone()),
                _ => match view.find(Kind::Resource, &shown) {
                    Some(found) => (found.service, found.key.to_string()),
                    None => continue,
                },
            };
            wish.resources.push(Watched { shown, service, uri });
        }
        Ok(wish)
    }

    /// The `notifications` that are told of, JSON text.
    fn accepted(&self) -> String {
        let uris: Vec<String> = self.resources.iter().map(|watched| turn::quoted(&watched.shown)).collect();
        let uris = format!("[{}]", uris.join(","));
        let lists = self.lists.iter().map(|list| (*list, "true"));
        let resources = (!self.resources.is_empty()).then_some(("resourceSubscriptions", uris.as_str()));
        turn::object(lists.chain(resources))
    }

    fn acknowledgement(&self) -> Bytes {
        let (id, accepted) = (&self.id, self.accepted());
        Bytes::from(format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{{"_meta":{{"{SUBSCRIPTION}":{id}}},"notifications":{accepted}}}}}"#
        ))
    }

    fn notification(&self, method: &str) -> Bytes {
        let id = &self.id;
        super::ears::notification(method, &format!(r#"{{"_meta":{{"{SUBSCRIPTION}":{id}}}}}"#))
    }

    /// The graceful end.
    fn end(&self) -> Bytes {
        let id = &self.id;
        let result = format!(
            r#"{{"resultType":"complete","_meta":{{"{SUBSCRIPTION}":{id},"io.modelcontextprotocol/serverInfo":{CLIENT_INFO}}}}}"#
        );
        answer::result(id, result.as_bytes())
    }

    fn interest(&self, instance: &Instance, scope: &Scope) -> Interest {
        let uris = self.resources.iter().filter(|watched| watched.service == instance.spec.service);
        let uris: Vec<String> = uris.map(|watched| turn::quoted(&watched.uri)).collect();
        let uris = format!("[{}]", uris.join(","));
        let lists = self.lists.iter().filter(|_| scope.is_service()).map(|list| (*list, "true"));
        let resources = (uris != "[]").then_some(("resourceSubscriptions", uris.as_str()));
        Interest { notifications: turn::object(lists.chain(resources)) }
    }

    /// What an instance said, as this client is told it; `None` when it has not asked for it.
    fn told(&self, data: &Bytes, instance: &Instance, scope: &Scope) -> Option<Bytes> {
        let Some(Shape::Notification { .. }) = message::shape(data) else { return None };
        let text = std::str::from_utf8(data).ok()?;
        let members = Members::of(text)?;
        let method: String = serde_json::from_str(members.get("method")?).ok()?;
        let mut more = Vec::new();
        let shown;
        match changed_list(&method) {
            Some(list) if scope.is_service() && self.lists.contains(&list) => {}
            None if method == "notifications/resources/updated" => {
                let uri: String =
                    serde_json::from_str(Members::of(members.get("params")?)?.get("uri")?).ok()?;
                let mut watched =
                    self.resources.iter().filter(|watched| watched.service == instance.spec.service);
                shown = turn::quoted(&watched.find(|watched| watched.uri == uri)?.shown);
                more.push(("uri", shown.as_str()));
            }
            _ => return None,
        }
        let meta = turn::meta_with(text, &[(SUBSCRIPTION, &self.id)]);
        more.push(("_meta", &meta));
        turn::with_params(text, &more).map(Bytes::from)
    }
}

/// Whether a service says that it tells of changes of a list.
fn announces(view: &View, kind: Kind) -> bool {
    let name = match kind {
        Kind::Tool => "tools",
        Kind::Prompt => "prompts",
        Kind::Resource | Kind::Template => "resources",
    };
    let capabilities = view.about().and_then(|about| about.capabilities.clone());
    let members = capabilities.as_deref().and_then(Members::of);
    let flags = members.and_then(|members| members.get(name).map(str::to_owned));
    flags.as_deref().and_then(Members::of).is_some_and(|flags| flags.get("listChanged") == Some("true"))
}
