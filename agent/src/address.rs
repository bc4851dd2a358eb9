//! Where a target is, as a user types it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A target that can be connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// `unix:PATH`
    Unix(PathBuf),
    /// `http://HOST:PORT`
    Http(String),
    /// `ADDRESS#NAME`: a target of the agent that is there.
    Through { agent: Box<Self>, target: String },
}

/// What a user names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    At(Address),
    /// A local target by its name, or by `name.instance`; it is followed across restarts.
    Named(String),
    /// A file that `taskscope save` wrote.
    Recording(PathBuf),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AddressError {
    #[error(
        "`{0}` has no path after `unix:`\nhint: write it as in unix:/run/user/1000/taskscope/checkout.1a2b3c4d.sock"
    )]
    NoPath(String),
    #[error("`{0}` has no HOST:PORT\nhint: write it as in http://127.0.0.1:6670")]
    NoHostPort(String),
    #[error("`{0}` has no name after `#`\nhint: `taskscope ls AGENT` lists the targets of an agent")]
    NoName(String),
    #[error(
        "`{0}`: TLS is not spoken yet\nhint: forward the port to this machine and use http://127.0.0.1:PORT"
    )]
    Tls(String),
    #[error(
        "`{0}` is no target\nhint: a name from `taskscope ls`, unix:PATH, http://HOST:PORT, or a saved file"
    )]
    Unknown(String),
}

impl FromStr for Target {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some((agent, target)) = text.rsplit_once('#').filter(|(agent, _)| is_address(agent)) {
            let Self::At(agent) = agent.parse()? else { return Err(unknown(text)) };
            return match target {
                "" => Err(AddressError::NoName(text.to_owned())),
                target => {
                    Ok(Self::At(Address::Through { agent: Box::new(agent), target: target.to_owned() }))
                }
            };
        }
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path {
                "" => Err(AddressError::NoPath(text.to_owned())),
                path => Ok(Self::At(Address::Unix(path.into()))),
            };
        }
        if text.starts_with("https://") {
            return Err(AddressError::Tls(text.to_owned()));
        }
        if let Some(rest) = text.strip_prefix("http://") {
            let authority = rest.trim_end_matches('/');
            let port = authority.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
            return match port.and_then(|port| port.parse::<u16>().ok()) {
                Some(port) if port != 0 && !authority.contains('/') => {
                    Ok(Self::At(Address::Http(format!("http://{authority}"))))
                }
                _ => Err(AddressError::NoHostPort(text.to_owned())),
            };
        }
        let path = PathBuf::from(text);
        if path.is_file() {
            return Ok(Self::Recording(path));
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if !text.is_empty() && text.chars().all(is_name) && !text.starts_with('.') {
            return Ok(Self::Named(text.to_owned()));
        }
        Err(unknown(text))
    }
}

fn is_address(text: &str) -> bool {
    text.starts_with("unix:") || text.starts_with("http://")
}

fn unknown(text: &str) -> AddressError {
    AddressError::Unknown(taskscope_proto::words::printable(text))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Http(url) => f.write_str(url),
            Self::Through { agent, target } => write!(f, "{agent}#{target}"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(address) => address.fmt(f),
            Self::Named(name) => f.write_str(name),
            Self::Recording(path) => path.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_as_documented() {
        let at = |text: &str| text.parse::<Target>();
        assert_eq!(at("unix:/run/a.sock"), Ok(Target::At(Address::Unix("/run/a.sock".into()))));
        assert_eq!(at("unix:///run/a.sock"), Ok(Target::At(Address::Unix("/run/a.sock".into()))));
        assert_eq!(
            at("http://127.0.0.1:6670/"),
            Ok(Target::At(Address::Http("http://127.0.0.1:6670".into())))
        );
        assert_eq!(at("http://[::1]:6670"), Ok(Target::At(Address::Http("http://[::1]:6670".into()))));
        let through = at("unix:/run/agent.sock#10.0.0.7:6670").expect("a target of an agent");
        let agent = Box::new(Address::Unix("/run/agent.sock".into()));
        assert_eq!(through, Target::At(Address::Through { agent, target: "10.0.0.7:6670".into() }));
        assert_eq!(through.to_string(), "unix:/run/agent.sock#10.0.0.7:6670");
        assert_eq!(at("http://127.0.0.1:1#a").map(|it| it.to_string()), Ok("http://127.0.0.1:1#a".into()));
        assert_eq!(at("checkout.1a2b3c4d"), Ok(Target::Named("checkout.1a2b3c4d".into())));
    }

    #[test]
    fn what_is_no_address_says_what_one_is() {
        for text in [
            "unix:",
            "http://",
            "http://host",
            "http://host:0",
            "http://h:1/path",
            "https://h:1",
            "http://h:1#",
            "a#b",
            "a b",
            "",
            "/x",
        ] {
            let error = text.parse::<Target>().expect_err(text).to_string();
            assert!(error.contains("\nhint: "), "{text}: {error}");
        }
    }
}
