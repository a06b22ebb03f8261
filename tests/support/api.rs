//! The HTTP API as a caller sees it.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::{Value, json};

#[derive(Clone)]
pub struct Api {
    pub base: String,
    client: reqwest::Client,
}

#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("answers are UTF-8")
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("status {}, not JSON ({error}): {:?}", self.status, self.body))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("header values are ASCII"))
    }

    /// The body of a success.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()
    }

    /// Checks status, media type and shape of an RFC 9457 problem, and that its code is `code`.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "wanted {code}: {}", self.text());
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.text());
        let body = self.json();
        assert_eq!(body["code"], code, "{body}");
        assert_eq!(body["status"], status, "{body}");
        for member in ["type", "title", "detail"] {
            assert!(body[member].as_str().is_some_and(|text| !text.is_empty()), "no `{member}` in {body}");
        }
        body
    }

    /// The text of a successful call's first content block.
    #[track_caller]
    pub fn tool_text(&self) -> String {
        let body = self.ok();
        body["result"]["content"][0]["text"]
            .as_str()
            .unwrap_or_else(|| panic!("no text in {body}"))
            .to_owned()
    }
}

impl Api {
    pub fn new(base: &str) -> Self {
        // `no_proxy`: an HTTP proxy from the environment must not come between.
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(60))
            .build()
            .expect("a plain client");
        Self { base: base.to_owned(), client }
    }

    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    /// # Errors
    /// What kept the answer from arriving whole.
    pub async fn try_send(request: reqwest::RequestBuilder) -> reqwest::Result<Answer> {
        let answer = request.send().await?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Ok(Answer { status, headers, body: answer.bytes().await? })
    }

    pub async fn send(request: reqwest::RequestBuilder) -> Answer {
        Self::try_send(request).await.expect("the proxy answers")
    }

    pub async fn get(&self, path: &str) -> Answer {
        Self::send(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        Self::send(self.request(Method::POST, path).json(body)).await
    }

    /// Sends `body` as it is.
    pub async fn post_text(&self, path: &str, body: &str) -> Answer {
        let request = self.request(Method::POST, path).header("content-type", "application/json");
        Self::send(request.body(body.to_owned())).await
    }

    /// Registers an instance of the service `name` with that very name; its tools are asked for.
    #[track_caller]
    pub fn join(&self, name: &str, port: u16) -> impl Future<Output = Value> {
        self.join_as(json!({"instance_name": name, "port": port, "tools": []}))
    }

    /// Registers, waits until the proxy knows the tools, so that it also knows which are read-only, and goes on with
    /// heartbeats as instances do, while the test runs.
    #[track_caller]
    pub fn join_as(&self, spec: Value) -> impl Future<Output = Value> {
        let api = self.clone();
        async move {
            let answer = api.post("/register", &spec).await;
            assert_eq!(answer.status, 201, "{}", answer.text());
            let registered = answer.json();
            let service = registered["service"].as_str().expect("a service").to_owned();
            let instance = spec["instance_name"].clone();
            super::eventually(&format!("`{instance}` is introspected"), super::SOON, || async {
                let info = api.service(&service).await;
                let instances = info["instances"].as_array().expect("instances");
                let here = instances.iter().find(|one| one["instance_name"] == instance)?;
                let tools = info["tools"].as_array().is_some_and(|tools| !tools.is_empty());
                (tools && here["state"] == "healthy").then_some(())
            })
            .await;
            tokio::spawn(beat(api, instance, registered["lease_token"].clone()));
            registered
        }
    }

    pub async fn call(&self, target: &str, tool: &str, arguments: Value) -> Answer {
        self.post("/call", &json!({"target_instance": target, "tool_name": tool, "arguments": arguments}))
            .await
    }

    /// # Errors
    /// What kept the answer from arriving whole.
    pub async fn try_call(&self, target: &str, tool: &str, arguments: Value) -> reqwest::Result<Answer> {
        let body = json!({"target_instance": target, "tool_name": tool, "arguments": arguments});
        Self::try_send(self.request(Method::POST, "/call").json(&body)).await
    }

    #[track_caller]
    pub fn service(&self, name: &str) -> impl Future<Output = Value> {
        let api = self.clone();
        let path = format!("/services/{name}");
        async move { api.get(&path).await.ok() }
    }

    /// The only instance of a service.
    pub async fn instance(&self, service: &str) -> Value {
        let info = self.service(service).await;
        let instances = info["instances"].as_array().expect("instances");
        assert_eq!(instances.len(), 1, "{info}");
        instances[0].clone()
    }

    pub async fn stats(&self) -> Value {
        self.get("/stats").await.ok()
    }

    pub async fn plugin(&self, name: &str) -> Option<Value> {
        let listing = self.get("/plugins").await.ok();
        let plugins = listing["plugins"].as_array().expect("plugins").clone();
        plugins.into_iter().find(|plugin| plugin["name"] == name)
    }
}

async fn beat(api: Api, instance: Value, token: Value) {
    loop {
        tokio::time::sleep(Duration::from_secs(30)).await;
        let beat = json!({"instance_name": instance, "lease_token": token});
        // Some proxies are gone by now, and some leases were meant to end.
        Api::try_send(api.request(Method::POST, "/heartbeat").json(&beat)).await.ok();
    }
}
