//! What one service has in the catalogue: its declarations under their merged names, made once for each change of
//! its offer.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::names::{alias_template, alias_uri, hashed_name, merged_name};
use super::view::View;
use crate::mcp::envelope::put_string;
use crate::mesh::exposure::Exposure;
use crate::mesh::ids::Name;
use crate::mesh::offer::{Item, Kind, Offer};

#[derive(Debug)]
pub(super) struct Shelf {
    pub service: Name,
    pub offer: Arc<Offer>,
    /// In the order of the offer, without what is hidden.
    goods: [Vec<Good>; 4],
    /// The service on its own, under its own names.
    pub view: Arc<View>,
}

/// One declaration as merged views show it.
#[derive(Clone, Debug)]
pub(super) struct Good {
    pub item: Item,
    pub shown: Arc<str>,
    /// The declaration under that name.
    pub json: Bytes,
}

impl Shelf {
    pub(super) fn new(service: &Name, offer: &Arc<Offer>, exposure: &Exposure) -> Self {
        let visible = |kind: Kind| {
            offer.of(kind).iter().filter(move |item| exposure.passes(kind, &item.key)).cloned().collect()
        };
        let goods: [Vec<Item>; 4] = Kind::ALL.map(visible);
        let view = Arc::new(View::of_service(service, offer, exposure, &goods));
        let mut buffer = BytesMut::new();
        let goods = Kind::ALL.map(|kind| {
            let items = goods[kind as usize].iter();
            items.filter_map(|item| Good::new(kind, service, item, &mut buffer)).collect()
        });
        Self { service: service.clone(), offer: Arc::clone(offer), goods, view }
    }

    pub(super) fn goods(&self, kind: Kind) -> &[Good] {
        &self.goods[kind as usize]
    }
}

impl Good {
    /// `None` for a declaration that cannot be read; none comes here that was not read before.
    fn new(kind: Kind, service: &Name, item: &Item, buffer: &mut BytesMut) -> Option<Self> {
        match kind {
            Kind::Tool | Kind::Prompt => {
                let shown = merged_name(service.as_str(), &item.key);
                let json = renamed(kind, &item.json, &shown, buffer)?;
                Some(Self { item: item.clone(), shown: shown.into(), json })
            }
            Kind::Resource | Kind::Template => {
                buffer.put_slice(item.json.as_bytes());
                let json = buffer.split().freeze();
                Some(Self { item: item.clone(), shown: Arc::clone(&item.key), json })
            }
        }
    }

    /// The same under another name, for when the first is taken: `a__b` + `c` and `a` + `b__c`, or two services with
    /// one URI.
    pub(super) fn otherwise(&self, kind: Kind, service: &Name) -> Option<Self> {
        let shown = match kind {
            Kind::Tool | Kind::Prompt => hashed_name(service.as_str(), &self.item.key),
            Kind::Resource => alias_uri(service.as_str(), &self.item.key),
            Kind::Template => alias_template(service.as_str(), &self.item.key),
        };
        let json = renamed(kind, &self.item.json, &shown, &mut BytesMut::new())?;
        Some(Self { item: self.item.clone(), shown: shown.into(), json })
    }
}

/// A declaration under another name; all its other bytes stay.
pub(super) fn renamed(kind: Kind, json: &str, name: &str, buffer: &mut BytesMut) -> Option<Bytes> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Named<'a> {
        #[serde(borrow)]
        name: Option<&'a RawValue>,
        #[serde(borrow)]
        uri: Option<&'a RawValue>,
        #[serde(borrow)]
        uri_template: Option<&'a RawValue>,
    }
    let named: Named<'_> = serde_json::from_str(json).ok()?;
    let old = match kind {
        Kind::Tool | Kind::Prompt => named.name,
        Kind::Resource => named.uri,
        Kind::Template => named.uri_template,
    };
    let old = old?.get();
    let at = old.as_ptr() as usize - json.as_ptr() as usize;
    buffer.reserve(json.len() + name.len() + 2);
    buffer.put_slice(&json.as_bytes()[..at]);
    put_string(buffer, name);
    buffer.put_slice(&json.as_bytes()[at + old.len()..]);
    Some(buffer.split().freeze())
}
