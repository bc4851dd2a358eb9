//! A request to the shop, as bytes of HTTP/1.1.

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Request {
    method: &'static str,
    path: String,
    body: String,
}

impl Request {
    pub(crate) fn get(path: String) -> Self {
        Self { method: "GET", path, body: String::new() }
    }

    pub(crate) fn post(path: &str, json: String) -> Self {
        Self { method: "POST", path: path.to_owned(), body: json }
    }

    /// The connection stays open for the next request.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let Self { method, path, body } = self;
        let length = body.len();
        format!(
            "{method} {path} HTTP/1.1\r\nhost: shop.test\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    }
}
