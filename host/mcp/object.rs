//! Reading JSON objects strictly: a member that is looked at may be there once only, and no other member may differ
//! from it in case alone. A receiver that takes the last of two, or does not tell `Method` from `method`, would
//! otherwise be told something else than what was looked at here.

/// Declares a struct of optional members, each `name: "key" => type`, and how it is read.
macro_rules! object {
    ($(#[$about:meta])* pub struct $Name:ident<'a> { $($(#[$doc:meta])* $field:ident: $key:literal => $Type:ty,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Default)]
        pub struct $Name<'a> {
            $($(#[$doc])* pub $field: Option<$Type>,)+
            marker: std::marker::PhantomData<&'a ()>,
        }

        impl<'de: 'a, 'a> serde::Deserialize<'de> for $Name<'a> {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                #[allow(non_camel_case_types)]
                enum Key { $($field,)+ Other }

                impl<'de> serde::Deserialize<'de> for Key {
                    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                        struct Visit;
                        impl serde::de::Visitor<'_> for Visit {
                            type Value = Key;
                            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                                f.write_str("a key")
                            }
                            fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Key, E> {
                                $(if key == $key { return Ok(Key::$field); })+
                                $(if key.eq_ignore_ascii_case($key) {
                                    return Err(E::custom(format_args!("`{key}` differs from `{}` in case alone", $key)));
                                })+
                                Ok(Key::Other)
                            }
                        }
                        deserializer.deserialize_identifier(Visit)
                    }
                }

                struct Visit<'a>(std::marker::PhantomData<&'a ()>);
                impl<'de: 'a, 'a> serde::de::Visitor<'de> for Visit<'a> {
                    type Value = $Name<'a>;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("an object")
                    }
                    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<$Name<'a>, A::Error> {
                        let mut object = $Name::default();
                        while let Some(key) = map.next_key::<Key>()? {
                            match key {
                                $(Key::$field => {
                                    if object.$field.is_some() {
                                        return Err(serde::de::Error::duplicate_field($key));
                                    }
                                    object.$field = Some(map.next_value()?);
                                })+
                                Key::Other => {
                                    map.next_value::<serde::de::IgnoredAny>()?;
                                }
                            }
                        }
                        Ok(object)
                    }
                }
                deserializer.deserialize_map(Visit(std::marker::PhantomData))
            }
        }
    };
}

pub(crate) use object;
