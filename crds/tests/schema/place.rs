//! The places of a schema, each by its path: `AddressPool.spec.addresses[]`.

use herald_crds::manifest::definitions;
use serde_json::Value;

/// A value's place in the schema of a kind.
pub(crate) struct Place {
    pub(crate) path: String,
    pub(crate) schema: Value,
    /// Maximum number of such values in an object: the product of the bounds of all lists and maps around it. `None`
    /// where one of them has no bound.
    pub(crate) times: Option<u64>,
}

impl Place {
    /// Returns the value of a keyword, if it is a text.
    pub(crate) fn text(&self, keyword: &str) -> Option<&str> {
        self.schema.get(keyword).and_then(Value::as_str)
    }

    fn and_below(self) -> Vec<Self> {
        let below = |path: String, schema: &Value, times| Self { path, schema: schema.clone(), times }.and_below();
        let bounded = |keyword: &str| self.schema.get(keyword).and_then(Value::as_u64);
        let mut all = Vec::new();
        for (field, schema) in self.schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            all.extend(below(format!("{}.{field}", self.path), schema, self.times));
        }
        for (keyword, bound, suffix) in [("items", "maxItems", "[]"), ("additionalProperties", "maxProperties", "{}")] {
            if let Some(schema) = self.schema.get(keyword) {
                let times = self.times.zip(bounded(bound)).map(|(outer, inner)| outer * inner);
                all.extend(below(format!("{}{suffix}", self.path), schema, times));
            }
        }
        all.push(self);
        all
    }
}

/// Returns the kind of a definition, and its schema.
pub(crate) fn schema_of(definition: &Value) -> (String, Value) {
    let kind = definition["spec"]["names"]["kind"].as_str().unwrap().to_owned();
    (kind, definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone())
}

/// Returns every place of every definition.
pub(crate) fn places() -> Vec<Place> {
    let place = |(path, schema)| Place { path, schema, times: Some(1) };
    let definition = |(_, definition)| place(schema_of(&serde_json::to_value(definition).unwrap()));
    definitions().into_iter().map(definition).flat_map(Place::and_below).collect()
}
